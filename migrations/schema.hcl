table "authenticators" {
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
  column "secret" {
    null = false
    type = bytea
  }
  column "confirmed_at" {
    null = true
    type = timestamptz
  }
  column "last_step" {
    null    = false
    type    = bigint
    default = sql("'0'")
  }
  column "user_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "authenticators_users_authenticators" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = CASCADE
  }
  index "authenticator_user_id" {
    unique  = true
    columns = [column.user_id]
  }
}
table "backup_codes" {
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
  column "hash" {
    null = false
    type = bytea
  }
  column "used_at" {
    null = true
    type = timestamptz
  }
  column "user_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "backup_codes_users_backup_codes" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = CASCADE
  }
  index "backupcode_user_id_hash" {
    unique  = true
    columns = [column.user_id, column.hash]
  }
}
table "login_attempts" {
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
  column "account" {
    null = false
    type = varchar
  }
  column "user_id" {
    null = true
    type = uuid
  }
  column "outcome" {
    null = false
    type = varchar
  }
  column "address" {
    null = false
    type = varchar
  }
  column "user_agent" {
    null = false
    type = varchar
  }
  primary_key {
    columns = [column.id]
  }
  index "loginattempt_account_created_at" {
    columns = [column.account, column.created_at]
  }
  index "loginattempt_created_at" {
    columns = [column.created_at]
  }
}
table "login_guards" {
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
  column "account" {
    null = false
    type = varchar
  }
  column "failures" {
    null = false
    type = bigint
  }
  column "window_started_at" {
    null = false
    type = timestamptz
  }
  column "next_attempt_at" {
    null = true
    type = timestamptz
  }
  column "locked_until" {
    null = true
    type = timestamptz
  }
  primary_key {
    columns = [column.id]
  }
  index "login_guards_account_key" {
    unique  = true
    columns = [column.account]
  }
  index "loginguard_window_started_at" {
    columns = [column.window_started_at]
  }
}
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
table "one_time_tokens" {
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
  column "purpose" {
    null = false
    type = varchar
  }
  column "hash" {
    null = false
    type = bytea
  }
  column "email" {
    null = false
    type = varchar
  }
  column "expires_at" {
    null = false
    type = timestamptz
  }
  column "used_at" {
    null = true
    type = timestamptz
  }
  column "user_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "one_time_tokens_users_one_time_tokens" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = CASCADE
  }
  index "one_time_tokens_hash_key" {
    unique  = true
    columns = [column.hash]
  }
  index "onetimetoken_user_id_purpose" {
    columns = [column.user_id, column.purpose]
  }
  index "onetimetoken_expires_at" {
    columns = [column.expires_at]
  }
}
table "refresh_tokens" {
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
  column "parent_id" {
    null = true
    type = uuid
  }
  column "hash" {
    null = false
    type = bytea
  }
  column "salt" {
    null = true
    type = bytea
  }
  column "rotated_at" {
    null = true
    type = timestamptz
  }
  column "expires_at" {
    null = false
    type = timestamptz
  }
  column "session_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "refresh_tokens_sessions_refresh_tokens" {
    columns     = [column.session_id]
    ref_columns = [table.sessions.column.id]
    on_delete   = CASCADE
  }
  index "refresh_tokens_parent_id_key" {
    unique  = true
    columns = [column.parent_id]
  }
  index "refresh_tokens_hash_key" {
    unique  = true
    columns = [column.hash]
  }
  index "refreshtoken_session_id" {
    columns = [column.session_id]
  }
  index "refreshtoken_expires_at" {
    columns = [column.expires_at]
  }
}
table "security_events" {
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
  column "name" {
    null = false
    type = varchar
  }
  column "severity" {
    null = false
    type = varchar
  }
  column "actor" {
    null = true
    type = varchar
  }
  column "address" {
    null = true
    type = varchar
  }
  column "user_agent" {
    null = true
    type = varchar
  }
  column "request_id" {
    null = true
    type = varchar
  }
  column "detail" {
    null = true
    type = jsonb
  }
  column "user_id" {
    null = true
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "security_events_users_security_events" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = SET_NULL
  }
  index "securityevent_user_id_created_at_id" {
    columns = [column.user_id, column.created_at, column.id]
  }
  index "securityevent_created_at_id" {
    columns = [column.created_at, column.id]
  }
  index "securityevent_name_created_at" {
    columns = [column.name, column.created_at]
  }
}
table "sessions" {
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
  column "address" {
    null = false
    type = varchar
  }
  column "user_agent" {
    null = false
    type = varchar
  }
  column "last_used_at" {
    null = false
    type = timestamptz
  }
  column "expires_at" {
    null = false
    type = timestamptz
  }
  column "ends_at" {
    null = false
    type = timestamptz
  }
  column "revoked_at" {
    null = true
    type = timestamptz
  }
  column "revoked_because" {
    null = true
    type = varchar
  }
  column "user_id" {
    null = false
    type = uuid
  }
  primary_key {
    columns = [column.id]
  }
  foreign_key "sessions_users_sessions" {
    columns     = [column.user_id]
    ref_columns = [table.users.column.id]
    on_delete   = CASCADE
  }
  index "session_user_id_expires_at" {
    columns = [column.user_id, column.expires_at]
  }
  index "session_revoked_at" {
    columns = [column.revoked_at]
    where   = "revoked_at IS NOT NULL"
  }
  index "session_expires_at" {
    columns = [column.expires_at]
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
  column "deleted_at" {
    null = true
    type = timestamptz
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
  column "email_verified_at" {
    null = true
    type = timestamptz
  }
  column "totp_confirmed_at" {
    null = true
    type = timestamptz
  }
  column "locked_at" {
    null = true
    type = timestamptz
  }
  column "password_hash" {
    null = true
    type = varchar
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
# track: authenticators changelog_track('authenticators', 'authenticator', '{secret}', false)
# track: backup_codes changelog_track('backup_codes', 'backup_code', '{hash}', false)
# track: login_attempts changelog_track('login_attempts', 'login_attempt', '{}', false)
# track: login_guards changelog_track('login_guards', 'login_guard', '{}', false)
# track: messages changelog_track('messages', 'message', '{}', true)
# track: one_time_tokens changelog_track('one_time_tokens', 'one_time_token', '{hash}', false)
# track: refresh_tokens changelog_track('refresh_tokens', 'refresh_token', '{hash,salt}', false)
# track: security_events changelog_track('security_events', 'security_event', '{}', true)
# track: sessions changelog_track('sessions', 'session', '{}', true)
# track: threads changelog_track('threads', 'thread', '{}', true)
# track: thread_members changelog_track_join('thread_members', 'thread', 'threads', 'thread_id', 'user_id', 'members')
# track: users changelog_track('users', 'user', '{password_hash}', true)
