-- +goose Up

-- create "authors" table
CREATE TABLE "authors" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  PRIMARY KEY ("id")
);

-- create "books" table
CREATE TABLE "books" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "title" character varying NOT NULL,
  "pages" bigint NOT NULL,
  "author_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "books_authors_author" FOREIGN KEY ("author_id") REFERENCES "authors" ("id") ON DELETE NO ACTION
);

-- create "book_readers" table
CREATE TABLE "book_readers" (
  "book_id" uuid NOT NULL,
  "author_id" uuid NOT NULL,
  PRIMARY KEY ("book_id", "author_id"),
  CONSTRAINT "book_readers_book_id" FOREIGN KEY ("book_id") REFERENCES "books" ("id") ON DELETE CASCADE,
  CONSTRAINT "book_readers_author_id" FOREIGN KEY ("author_id") REFERENCES "authors" ("id") ON DELETE CASCADE
);

-- create index "book_readers_author_id_idx" to table: "book_readers"
CREATE INDEX "book_readers_author_id_idx" ON "book_readers" ("author_id");

SELECT changelog_track('authors', 'author', '{}', true);

SELECT changelog_track('books', 'book', '{}', true);

SELECT changelog_track_join('book_readers', 'book', 'books', 'book_id', 'author_id', 'readers');
