table "messages" {
  schema = schema.public
  column "id" {
    null    = false
    type    = uuid
    default = sql("(gen_random_uuid())")
  }
  column "version" {
    null    = false
    type    = bigint
    default = sql("'1'")
  }
  column "created_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "updated_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "body" {
    null = false
    type = varchar
  }
  column "thread_id" {
    null = false
    type = uuid
  }
  column "author_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "messages_threads_messages" {
    columns     = [column.thread_id]
    ref_columns = [table.threads.column.id]
    on_delete   = CASCADE
  }
  foreign_key "messages_users_messages" {
    columns     = [column.author_id]
    ref_columns = [table.users.column.id]
    on_delete   = NO_ACTION
  }
  index "message_thread_id_id" {
    columns = [column.thread_id, column.id]
  }
  index "message_author_id" {
    columns = [column.author_id]
  }
}
table "threads" {
  schema = schema.public
  column "id" {
    null    = false
    type    = uuid
    default = sql("(gen_random_uuid())")
  }
  column "version" {
    null    = false
    type    = bigint
    default = sql("'1'")
  }
  column "created_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "updated_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "subject" {
    null = false
    type = varchar
  }
  column "owner_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "threads_users_owned_threads" {
    columns     = [column.owner_id]
    ref_columns = [table.users.column.id]
    on_delete   = NO_ACTION
  }
  index "thread_owner_id" {
    columns = [column.owner_id]
  }
  index "thread_created_at_id" {
    columns = [column.created_at, column.id]
  }
}
table "users" {
  schema = schema.public
  column "id" {
    null    = false
    type    = uuid
    default = sql("(gen_random_uuid())")
  }
  column "version" {
    null    = false
    type    = bigint
    default = sql("'1'")
  }
  column "created_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "updated_at" {
    null    = false
    type    = timestamptz
    default = sql("(now())")
  }
  column "email" {
    null = false
    type = varchar
  }
  column "username" {
    null = false
    type = varchar
  }
  column "name" {
    null = false
    type = varchar
  }
  column "role" {
    null    = false
    type    = varchar
    default = sql("'user'")
  }
  primary_key {
    columns = [column.id]
  }
  index "users_email_key" {
    unique  = true
    columns = [column.email]
  }
  index "users_username_key" {
    unique  = true
    columns = [column.username]
  }
}
table "thread_members" {
  schema = schema.public
  column "thread_id" {
    null = false
    type = uuid
  }
  column "user_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.thread_id, column.user_id]
  }
  foreign_key "thread_members_thread_id" {
    columns     = [column.thread_id]
    ref_columns = [table.threads.column.id]
    on_delete   = CASCADE
  }
  foreign_key "thread_members_user_id" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = CASCADE
  }
  index "thread_members_user_id_idx" {
    columns = [column.user_id]
  }
}
schema "public" {
}
# track: messages changelog_track('messages', 'message', '{}', true)
# track: threads changelog_track('threads', 'thread', '{}', true)
# track: thread_members changelog_track_join('thread_members', 'thread', 'threads', 'thread_id', 'user_id', 'members')
# track: users changelog_track('users', 'user', '{}', true)
