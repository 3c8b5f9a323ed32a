-- +goose Up

-- create "orders" table
CREATE TABLE "orders" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "type" character varying NOT NULL,
  "input" character varying NOT NULL,
  "query" character varying NOT NULL,
  "fragment" character varying NOT NULL,
  "on" character varying NOT NULL,
  "select" character varying NULL,
  "func" character varying NOT NULL,
  "range" character varying NOT NULL,
  "obj" character varying NOT NULL,
  "ctx" character varying NOT NULL,
  "first" bigint NOT NULL,
  "interface" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "purchase_orders" table
CREATE TABLE "purchase_orders" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  PRIMARY KEY ("id")
);

-- create "api_keys" table
CREATE TABLE "api_keys" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "url" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "order_items" table
CREATE TABLE "order_items" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "html_url" character varying NOT NULL,
  "unit_price_2" bigint NOT NULL,
  "old_price" bigint NOT NULL,
  "pos_x" bigint NOT NULL,
  "by_hand" boolean NOT NULL,
  "parent_order_id" uuid NOT NULL,
  "api_key_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "order_items_orders_order_items" FOREIGN KEY ("parent_order_id") REFERENCES "orders" ("id") ON DELETE NO ACTION,
  CONSTRAINT "order_items_api_keys_api_key" FOREIGN KEY ("api_key_id") REFERENCES "api_keys" ("id") ON DELETE SET NULL
);

-- create "news" table
CREATE TABLE "news" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  PRIMARY KEY ("id")
);

-- create "order_item_news" table
CREATE TABLE "order_item_news" (
  "order_item_id" uuid NOT NULL,
  "news_id" uuid NOT NULL,
  PRIMARY KEY ("order_item_id", "news_id"),
  CONSTRAINT "order_item_news_order_item_id" FOREIGN KEY ("order_item_id") REFERENCES "order_items" ("id") ON DELETE CASCADE,
  CONSTRAINT "order_item_news_news_id" FOREIGN KEY ("news_id") REFERENCES "news" ("id") ON DELETE CASCADE
);

-- create index "order_item_news_news_id_idx" to table: "order_item_news"
CREATE INDEX "order_item_news_news_id_idx" ON "order_item_news" ("news_id");

-- create "persons" table
CREATE TABLE "persons" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "news" jsonb NULL,
  PRIMARY KEY ("id")
);

-- create "order_item_people" table
CREATE TABLE "order_item_people" (
  "order_item_id" uuid NOT NULL,
  "person_id" uuid NOT NULL,
  PRIMARY KEY ("order_item_id", "person_id"),
  CONSTRAINT "order_item_people_order_item_id" FOREIGN KEY ("order_item_id") REFERENCES "order_items" ("id") ON DELETE CASCADE,
  CONSTRAINT "order_item_people_person_id" FOREIGN KEY ("person_id") REFERENCES "persons" ("id") ON DELETE CASCADE
);

-- create index "order_item_people_person_id_idx" to table: "order_item_people"
CREATE INDEX "order_item_people_person_id_idx" ON "order_item_people" ("person_id");

SELECT changelog_track('api_keys', 'api_key', '{}', true);

SELECT changelog_track('news', 'news', '{}', true);

SELECT changelog_track('orders', 'order', '{}', true);

SELECT changelog_track('order_items', 'order_item', '{}', true);

SELECT changelog_track_join('order_item_news', 'order_item', 'order_items', 'order_item_id', 'news_id', 'news');

SELECT changelog_track_join('order_item_people', 'order_item', 'order_items', 'order_item_id', 'person_id', 'people');

SELECT changelog_track('persons', 'person', '{}', true);

SELECT changelog_track('purchase_orders', 'purchase_order', '{}', true);
