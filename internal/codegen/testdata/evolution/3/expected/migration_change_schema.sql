-- +goose Up

-- ATTENTION: this loses the data of column books.shelf_id. If it was renamed, write ALTER TABLE ... RENAME instead.

-- ATTENTION: this loses the data of table shelves. If it was renamed, write ALTER TABLE ... RENAME instead.

-- ATTENTION: this loses the data of table book_editors. If it was renamed, write ALTER TABLE ... RENAME instead.

SELECT changelog_untrack('book_editors');

SELECT changelog_untrack('shelves');

-- modify "books" table
ALTER TABLE "books" ALTER COLUMN "title" DROP NOT NULL, DROP COLUMN "shelf_id";

-- drop "book_editors" table
DROP TABLE "book_editors";

-- drop "shelves" table
DROP TABLE "shelves";

SELECT changelog_track('authors', 'author', '{pen_name}', false);

SELECT changelog_track('books', 'book', '{}', true);
