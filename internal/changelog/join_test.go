package changelog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// linked is a setup with persons 1 to 3 and threads 1 and 2, and an empty log.
func linked(t *testing.T) *bundle {
	b := setup(t)
	b.exec(`INSERT INTO person (id) VALUES (#1), (#2), (#3); INSERT INTO thread (id) VALUES (#1), (#2)`)
	b.log()
	return b
}

func TestJoinLinkAndUnlink(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`INSERT INTO member VALUES (#1, #1), (#1, #2), (#2, #1)`)
	b.exec(`DELETE FROM member WHERE person = #1`)
	b.exec(`DELETE FROM member WHERE person = #1`)
	b.exec(`UPDATE member SET person = #3; UPDATE member SET person = person`)
	b.exec(`UPDATE member SET thread = #2`)
	require.Equal(t, []string{
		`U Thread#1 v2 {members} {"members":{"added":[#1, #2], "removed":[]}}`,
		`U Thread#2 v2 {members} {"members":{"added":[#1], "removed":[]}}`,
		`U Thread#1 v3 {members} {"members":{"added":[], "removed":[#1]}}`,
		`U Thread#2 v3 {members} {"members":{"added":[], "removed":[#1]}}`,
		`U Thread#1 v4 {members} {"members":{"added":[#3], "removed":[#2]}}`,
		`U Thread#1 v5 {members} {"members":{"added":[], "removed":[#3]}}`,
		`U Thread#2 v4 {members} {"members":{"added":[#3], "removed":[]}}`,
	}, b.log())
	require.Equal(t, "{5,4}", b.text(`SELECT array_agg(version ORDER BY id) FROM thread`))
}

func TestJoinOnceForEachTransaction(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`INSERT INTO member VALUES (#1, #1); INSERT INTO member VALUES (#1, #2); DELETE FROM member WHERE person = #1; INSERT INTO member VALUES (#1, #3)`)
	require.Equal(t, []string{`U Thread#1 v2 {members} {"members":{"added":[#2, #3], "removed":[]}}`}, b.log())
	b.exec(`DELETE FROM member; INSERT INTO member VALUES (#1, #2), (#1, #1)`)
	require.Equal(t, []string{`U Thread#1 v3 {members} {"members":{"added":[#1], "removed":[#3]}}`}, b.log())
	b.exec(`UPDATE thread SET title = 'a' WHERE id = #1; DELETE FROM member`)
	require.Equal(t, []string{`U Thread#1 v4 {title,members} {"title":null, "members":{"added":[], "removed":[#1, #2]}}`}, b.log())
	b.exec(`INSERT INTO thread (id) VALUES (#3); INSERT INTO member VALUES (#3, #1)`)
	require.Equal(t, []string{`I Thread#3 v1 {members}`}, b.log())
	b.exec(`INSERT INTO member VALUES (#1, #1); UPDATE thread SET title = 'b' WHERE id = #1; DELETE FROM member WHERE thread = #1`)
	require.Equal(t, []string{
		`U Thread#1 v5 {members} {"members":{"added":[#1], "removed":[]}}`,
		`U Thread#1 v6 {title,members} {"title":"a", "members":{"added":[], "removed":[#1]}}`,
	}, b.log(), "a write after the link is a version of its own")
}

func TestJoinSavepoint(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`BEGIN;
		SAVEPOINT a; INSERT INTO member VALUES (#1, #1); ROLLBACK TO a;
		SAVEPOINT b; UPDATE thread SET title = 'x' WHERE id = #1; ROLLBACK TO b;
		COMMIT`)
	require.Empty(t, b.log())
	b.exec(`BEGIN;
		SAVEPOINT a; UPDATE thread SET title = 'x' WHERE id = #1; ROLLBACK TO a;
		INSERT INTO member VALUES (#1, #1);
		SAVEPOINT b; INSERT INTO member VALUES (#1, #2); ROLLBACK TO b;
		SAVEPOINT c; INSERT INTO member VALUES (#1, #3); RELEASE c;
		COMMIT`)
	require.Equal(t, []string{`U Thread#1 v2 {members} {"members":{"added":[#1, #3], "removed":[]}}`}, b.log())
}

func TestJoinBulk(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`INSERT INTO person (id) SELECT gen_random_uuid() FROM generate_series(1, 997)`)
	b.log()
	b.exec(`INSERT INTO member SELECT #1, id FROM person`)
	require.Equal(t, "1000", b.text(`SELECT jsonb_array_length(old->'members'->'added') FROM changes`))
	require.Equal(t, "2", b.text(`SELECT version FROM thread WHERE id = #1`))
	require.Len(t, b.log(), 1)
}

func TestJoinDeleteOfOwner(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`INSERT INTO member VALUES (#1, #1), (#2, #1)`)
	b.log()
	b.exec(`DELETE FROM thread`)
	require.Equal(t, []string{
		`D Thread#1 v3 {"id":#1, "owner":null, "title":null, "author":null, "members":{"added":[], "removed":[#1]}, "version":2}`,
		`D Thread#2 v3 {"id":#2, "owner":null, "title":null, "author":null, "members":{"added":[], "removed":[#1]}, "version":2}`,
	}, b.log())
	b.exec(`INSERT INTO thread (id) VALUES (#1); INSERT INTO member VALUES (#1, #1)`)
	b.log()
	b.exec(`DELETE FROM member; DELETE FROM thread`)
	require.Equal(t, []string{
		`U Thread#1 v2 {members} {"members":{"added":[], "removed":[#1]}}`,
		`D Thread#1 v3 {"id":#1, "owner":null, "title":null, "author":null, "version":2}`,
	}, b.log())
}

// TestJoinDeleteOfOther: a person's end unlinks it; as author and owner it reaches the same threads on other ways in the same statement.
func TestJoinDeleteOfOther(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`INSERT INTO member VALUES (#1, #1), (#2, #1), (#2, #2); UPDATE thread SET author = #1 WHERE id = #1;
		INSERT INTO thread (id, owner) VALUES (#3, #1); INSERT INTO member VALUES (#3, #1), (#3, #2)`)
	b.log()
	b.exec(`DELETE FROM person WHERE id = #1`)
	log := b.log()
	require.Len(t, log, 4)
	require.ElementsMatch(t, []string{
		`U Thread#1 v4 {author,members} {"author":#1, "members":{"added":[], "removed":[#1]}}`,
		`U Thread#2 v3 {members} {"members":{"added":[], "removed":[#1]}}`,
		`D Thread#3 v2 {"id":#3, "owner":#1, "title":null, "author":null, "members":{"added":[], "removed":[#1, #2]}, "version":1}`,
	}, log[1:])
}

// TestJoinInOneStatementWithOwner: the row of the owner is written before or after the triggers of its links run.
func TestJoinInOneStatementWithOwner(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`WITH l AS (INSERT INTO member VALUES (#1, #1)) UPDATE thread SET title = 'a' WHERE id = #1`)
	b.exec(`WITH t AS (UPDATE thread SET title = 'b' WHERE id = #1) INSERT INTO member VALUES (#1, #2)`)
	b.exec(`WITH t AS (UPDATE thread SET title = 'c' WHERE id = #1), d AS (DELETE FROM member WHERE person = #1) INSERT INTO member VALUES (#1, #3)`)
	require.Equal(t, []string{
		`U Thread#1 v2 {title,members} {"title":null, "members":{"added":[#1], "removed":[]}}`,
		`U Thread#1 v3 {title,members} {"title":"a", "members":{"added":[#2], "removed":[]}}`,
		`U Thread#1 v4 {title,members} {"title":"b", "members":{"added":[#3], "removed":[#1]}}`,
	}, b.log())
}

// TestJoinOwnedByTheOther: the same table, owned by the person, and by both.
func TestJoinOwnedByTheOther(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`SELECT changelog_track_join('member', 'Person', 'person', 'person', 'thread', 'threads'),
		changelog_track_join('member', 'Person', 'person', 'person', 'thread', 'threads')`)
	b.exec(`INSERT INTO member VALUES (#1, #1)`)
	b.exec(`DELETE FROM thread WHERE id = #1`)
	require.ElementsMatch(t, []string{
		`U Thread#1 v2 {members} {"members":{"added":[#1], "removed":[]}}`,
		`U Person#1 v2 {threads} {"threads":{"added":[#1], "removed":[]}}`,
		`D Thread#1 v3 {"id":#1, "owner":null, "title":null, "author":null, "members":{"added":[], "removed":[#1]}, "version":2}`,
		`U Person#1 v3 {threads} {"threads":{"added":[], "removed":[#1]}}`,
	}, b.log())
}

func TestJoinWithItself(t *testing.T) {
	t.Parallel()
	b := linked(t)
	b.exec(`CREATE TABLE friend (one uuid REFERENCES person ON DELETE CASCADE, other uuid REFERENCES person ON DELETE CASCADE, PRIMARY KEY (one, other));
		SELECT changelog_track_join('friend', 'Person', 'person', 'one', 'other', 'friends')`)
	b.exec(`INSERT INTO friend VALUES (#1, #2), (#2, #1)`)
	b.exec(`DELETE FROM person WHERE id = #1`)
	log := b.log()
	require.Equal(t, []string{
		`U Person#1 v2 {friends} {"friends":{"added":[#2], "removed":[]}}`,
		`U Person#2 v2 {friends} {"friends":{"added":[#1], "removed":[]}}`,
	}, log[:2])
	require.Len(t, log, 4)
	require.Contains(t, log[2], `"friends":{"added":[], "removed":[#2]}`)
	require.Equal(t, `U Person#2 v3 {friends} {"friends":{"added":[], "removed":[#1]}}`, log[3])
}
