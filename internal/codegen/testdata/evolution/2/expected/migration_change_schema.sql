-- +goose Up

-- ATTENTION: this loses the data of column books.pages. If it was renamed, write ALTER TABLE ... RENAME instead.

-- ATTENTION: this loses the data of column books.author_id. If it was renamed, write ALTER TABLE ... RENAME instead.

-- ATTENTION: this loses the data of table book_readers. If it was renamed, write ALTER TABLE ... RENAME instead.

SELECT changelog_untrack('book_readers');

-- create "shelves" table
CREATE TABLE "shelves" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  PRIMARY KEY ("id")
);

-- modify "books" table
ALTER TABLE "books" DROP COLUMN "pages", DROP COLUMN "author_id", ADD COLUMN "state" character varying NOT NULL DEFAULT 'draft', ADD COLUMN "isbn" character varying NULL, ADD COLUMN "shelf_id" uuid NULL, ADD
CONSTRAINT "books_shelves_shelf" FOREIGN KEY ("shelf_id") REFERENCES "shelves" ("id") ON DELETE SET NULL;

-- create index "books_isbn_key" to table: "books"
CREATE UNIQUE INDEX "books_isbn_key" ON "books" ("isbn");

-- create index "book_shelf_id" to table: "books"
CREATE INDEX "book_shelf_id" ON "books" ("shelf_id");

-- modify "authors" table
ALTER TABLE "authors" ADD COLUMN "pen_name" character varying NULL;

-- create "book_editors" table
CREATE TABLE "book_editors" (
  "book_id" uuid NOT NULL,
  "author_id" uuid NOT NULL,
  PRIMARY KEY ("book_id", "author_id"),
  CONSTRAINT "book_editors_book_id" FOREIGN KEY ("book_id") REFERENCES "books" ("id") ON DELETE CASCADE,
  CONSTRAINT "book_editors_author_id" FOREIGN KEY ("author_id") REFERENCES "authors" ("id") ON DELETE CASCADE
);

-- create index "book_editors_author_id_idx" to table: "book_editors"
CREATE INDEX "book_editors_author_id_idx" ON "book_editors" ("author_id");

-- drop "book_readers" table
DROP TABLE "book_readers";

SELECT changelog_track('authors', 'author', '{pen_name}', true);

SELECT changelog_track('books', 'book', '{}', true);

SELECT changelog_track_join('book_editors', 'book', 'books', 'book_id', 'author_id', 'editors');

SELECT changelog_track('shelves', 'shelf', '{}', true);
