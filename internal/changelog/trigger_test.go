package changelog

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestHandTypedVersions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO person (id, version, name) VALUES (#1, 99, 'a')`)
	b.exec(`UPDATE person SET version = 99, name = 'b'`)
	b.exec(`UPDATE person SET version = version`)
	b.exec(`INSERT INTO person (id, version, name) VALUES (#1, 7, 'c') ON CONFLICT (id) DO UPDATE SET version = EXCLUDED.version, name = 'c'`)
	require.Equal(t, "4", b.text(`SELECT version FROM person`))
	require.Equal(t, []string{
		`I Person#1 v1`,
		`U Person#1 v2 {name} {"name":"a"}`,
		`U Person#1 v3 {}`,
		`U Person#1 v4 {name} {"name":"b"}`,
	}, b.log())

	require.ErrorContains(t, b.try(`UPDATE person SET id = #2`), "cannot change")
	b.exec(`UPDATE person SET id = id`)
	require.Equal(t, []string{`U Person#1 v5 {}`}, b.log())
}

func TestUpdatedAt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO person (id, name, updated_at) VALUES (#1, 'a', '2001-01-01')`)
	b.exec(`UPDATE person SET updated_at = '2002-02-02'`)
	require.Equal(t, "true", b.text(`SELECT updated_at = '2002-02-02' FROM person`), "what is set stays")
	b.exec(`UPDATE person SET name = 'b'`)
	require.Equal(t, "true", b.text(`SELECT updated_at > now() - interval '1 minute' FROM person`))
}

func TestOnConflictDoNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO person (id, name) VALUES (#1, 'a')`)
	b.log()
	b.exec(`INSERT INTO person (id, name) VALUES (#1, 'b'), (#2, 'b'), (#3, 'a') ON CONFLICT DO NOTHING`)
	require.Equal(t, []string{`I Person#2 v1`}, b.log())
	b.exec(`INSERT INTO thread (id) VALUES (#1); INSERT INTO member VALUES (#1, #1)`)
	b.log()
	b.exec(`INSERT INTO member VALUES (#1, #1) ON CONFLICT DO NOTHING`)
	require.Empty(t, b.log())
}

func TestDeleteAndInsertAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO thread (id, title) VALUES (#1, 'a'); UPDATE thread SET title = 'b'`)
	b.exec(`DELETE FROM thread; INSERT INTO thread (id, title) VALUES (#1, 'c')`)
	b.exec(`DELETE FROM thread`)
	require.Equal(t, []string{
		`I Thread#1 v1`,
		`U Thread#1 v2 {title} {"title":"a"}`,
		`D Thread#1 v3 {"id":#1, "owner":null, "title":"b", "author":null, "version":2}`,
		`I Thread#1 v1`,
		`D Thread#1 v2 {"id":#1, "owner":null, "title":"c", "author":null, "version":1}`,
	}, b.log())
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`TRUNCATE member`)
	require.Equal(t, []string{`R Thread`}, b.log())
	b.exec(`SET LOCAL godstack.actor = 'me'; TRUNCATE person CASCADE`)
	require.Equal(t, "2", b.text(`SELECT count(*) FROM changes WHERE op = 'R' AND entity = 'Thread' AND actor = 'me'`))
	require.ElementsMatch(t, []string{`R Person`, `R Thread`, `R Thread`}, b.log())
}

func TestRolledBackChangesAreNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`BEGIN; INSERT INTO thread (id) VALUES (#1); ROLLBACK`)
	b.exec(`BEGIN;
		INSERT INTO thread (id) VALUES (#1);
		SAVEPOINT a; UPDATE thread SET title = 'x'; ROLLBACK TO a;
		UPDATE thread SET title = 'y';
		SAVEPOINT b; DELETE FROM thread; ROLLBACK TO b; RELEASE b;
		COMMIT`)
	require.Equal(t, []string{`I Thread#1 v1`, `U Thread#1 v2 {title} {"title":null}`}, b.log())
}

func TestForeignKeyActions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO person (id) VALUES (#1), (#2);
		INSERT INTO thread (id, author, owner) VALUES (#1, #1, #2), (#2, #1, NULL)`)
	b.log()
	b.exec(`DELETE FROM person WHERE id = #1`)
	require.Equal(t, []string{`U Thread#1 v2 {author} {"author":#1}`, `U Thread#2 v2 {author} {"author":#1}`}, b.log()[1:])
	b.exec(`DELETE FROM person WHERE id = #2`)
	require.Equal(t, []string{`D Thread#1 v3 {"id":#1, "owner":#2, "title":null, "author":null, "version":2}`}, b.log()[1:])
}

func TestFieldsAndOld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`SELECT changelog_untrack('member'); DROP TABLE member;
		CREATE DOMAIN amount AS numeric;
		CREATE TABLE "Odd ""table's" (id uuid PRIMARY KEY, version int NOT NULL, "select" int, "quo""te's" text, j json, js json[], p point,
			d amount, bytes bytea, hash text, names text[], doubled int GENERATED ALWAYS AS ("select" * 2) STORED, gone int);
		ALTER TABLE "Odd ""table's" DROP COLUMN gone;
		SELECT changelog_track('"Odd ""table''s"', 'O''dd', '{hash,bytes}')`)
	b.exec(`INSERT INTO "Odd ""table's" (id, "select", "quo""te's", j, js, p, d, hash, bytes) VALUES
		(#1, 1, 'a', '{"a":1}', '{"1","2"}', '(1,2)', 1.5, 'old secret', 'old secret')`)
	b.exec(`UPDATE "Odd ""table's" SET "select" = 2, "quo""te's" = NULL, j = '"\u0000"', hash = 'new secret'`)
	b.exec(`UPDATE "Odd ""table's" SET js = '{"2"}', p = '(2,1)', d = 1, bytes = 'new secret', names = '{a}', j = j`)
	b.exec(`UPDATE "Odd ""table's" SET js = '{"2"}', p = '(2,1)', d = 1.0, bytes = 'new secret', names = '{a}'`)
	b.exec(`DELETE FROM "Odd ""table's"`)
	require.Equal(t, []string{
		`I O'dd#1 v1`,
		`U O'dd#1 v2 {select,"quo\"te's",j,hash,doubled} {"j":"{\"a\":1}", "select":1, "doubled":2, "quo\"te's":"a"}`,
		`U O'dd#1 v3 {js,p,d,bytes,names} {"d":1.5, "p":"(1,2)", "js":[1, 2], "names":null}`,
		`U O'dd#1 v4 {}`,
		`D O'dd#1 v5 {"d":1.0, "j":"\"\\u0000\"", "p":"(2,1)", "id":#1, "js":[2], "names":["a"], "select":2, "doubled":4, "version":4, "quo\"te's":null}`,
	}, b.log())
}

func TestActor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`SET LOCAL godstack.actor = 'somebody'; INSERT INTO thread (id) VALUES (#1)`)
	b.exec(`INSERT INTO thread (id) VALUES (#2)`)
	require.Equal(t, "{somebody,NULL}", b.text(`SELECT array_agg(actor ORDER BY seq) FROM changes`))
}

func TestNotLogged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`SELECT changelog_track('person', 'Person', '{}', false); INSERT INTO person (id) VALUES (#1); UPDATE person SET name = 'a'`)
	require.Equal(t, "2", b.text(`SELECT version FROM person`))
	require.Empty(t, b.log())
}

func TestTrackAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO thread (id, title) VALUES (#1, 'a')`)
	b.exec(`ALTER TABLE thread DROP COLUMN author, ADD COLUMN colour text; ALTER TABLE thread RENAME title TO subject;
		SELECT changelog_track('thread', 'Topic')`)
	b.exec(`UPDATE thread SET subject = 'b', colour = 'red'`)
	b.log()
	b.exec(`UPDATE thread SET colour = 'blue'; ALTER TABLE thread RENAME TO topic;
		SELECT changelog_track('topic', 'Topic'), changelog_track('topic', 'Topic'); UPDATE topic SET subject = 'c'`)
	require.Equal(t, []string{`U Topic#1 v3 {colour} {"colour":"red"}`, `U Topic#1 v4 {subject} {"subject":"b"}`}, b.log())
	functions := func() string {
		return b.text(`SELECT coalesce(array_agg(proname ORDER BY 1), '{}') FROM pg_proc WHERE proname IN
			('changelog_of_person', 'changelog_of_thread', 'changelog_of_topic')`)
	}
	require.Equal(t, "{changelog_of_person,changelog_of_topic}", functions())

	b.exec(`SELECT changelog_untrack('topic'), changelog_untrack('person'), changelog_untrack('member'); UPDATE topic SET version = 99`)
	require.Empty(t, b.log())
	require.Equal(t, "{}", functions())
	require.Equal(t, "0", b.text(`SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%changelog%' AND
		tgrelid IN ('topic'::regclass, 'person'::regclass, 'member'::regclass)`))
}

func TestTrackRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.ErrorContains(t, b.try(`SELECT changelog_track('member', 'Member')`), "track member: no column id, version")
	require.ErrorContains(t, b.try(`SELECT changelog_track('person', 'Person', '{secert}')`), "no column secert")
}

// TestLongNames: identifiers of the greatest length, alike up to their end.
func TestLongNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const long = "a23456789_123456789_123456789_123456789_123456789_123456789_12"
	for _, last := range []string{"x", "y"} {
		b.exec(`CREATE TABLE ` + long + last + ` (id uuid, version int); SELECT changelog_track('` + long + last + `', '` + last + `');
			INSERT INTO ` + long + last + ` VALUES (#1)`)
	}
	require.Equal(t, []string{`I x#1 v1`, `I y#1 v1`}, b.log())
}

func TestOtherSearchPath(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`SET LOCAL search_path = pg_catalog; INSERT INTO public.thread (id) VALUES (#1); INSERT INTO public.person (id) VALUES (#1)`)
	b.exec(`SET LOCAL search_path = pg_catalog; INSERT INTO public.member VALUES (#1, #1); TRUNCATE public.member`)
	require.Len(t, b.log(), 4)
}

func TestFieldsSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO thread (id, title) VALUES (#1, 'a')`)
	b.exec(`UPDATE thread SET title = 'b'`)
	b.exec(`UPDATE thread SET title = 'c'; INSERT INTO person (id) VALUES (#1); INSERT INTO member VALUES (#1, #1)`)
	b.exec(`INSERT INTO thread (id) VALUES (#2); UPDATE thread SET title = 'd' WHERE id = #2; UPDATE thread SET author = #1 WHERE id = #1`)
	since := func(entity string, known, current int) (fields []string) {
		rows, err := b.Query(t.Context(), FieldsSince, id(1), entity, known, current)
		require.NoError(t, err)
		fields, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]string])
		require.NoError(t, err)
		return fields
	}
	require.Equal(t, []string{"author", "members", "title"}, since("Thread", 1, 4))
	require.Equal(t, []string{"title"}, since("Thread", 1, 2))
	require.Equal(t, []string{"author"}, since("Thread", 3, 4))
	require.Equal(t, []string{}, since("Thread", 4, 4))
	require.Nil(t, since("Thread", 0, 4), "it was inserted in between")
	require.Nil(t, since("Thread", 1, 5))
	require.Nil(t, since("Person", 1, 4))
	b.exec(`DELETE FROM changes WHERE id = #1 AND version = 3`)
	require.Nil(t, since("Thread", 1, 4), "the log does not know any more")
	require.Equal(t, []string{"author"}, since("Thread", 3, 4))
	b.exec(`DELETE FROM thread; INSERT INTO thread (id) VALUES (#1); UPDATE thread SET title = 'x'; UPDATE thread SET title = 'x'`)
	require.Nil(t, since("Thread", 1, 2), "there are two lives with these versions")
}
