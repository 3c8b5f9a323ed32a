package record_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
)

const readHistory = `query($id: ID!, $first: Int, $after: Cursor) { history(id: $id, first: $first, after: $after) { complete
	edges { cursor node { version kind at actor { username } fields old { field value } } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`

// told is a history in short: a line an entry, as "3 UPDATED ada subject=[subject "one"]".
func (a answer) told(t testing.TB) []string {
	t.Helper()
	require.Empty(t, a.Errors, a.raw)
	lines := []string{}
	for i := range a.at(t, "history.edges").([]any) {
		node := fmt.Sprintf("history.edges.%d.node.", i)
		actor := "-"
		if a.at(t, node+"actor") != nil {
			actor = a.text(t, node+"actor.username")
		}
		line := strings.Join([]string{a.text(t, node+"version"), a.text(t, node+"kind"), actor, fmt.Sprint(a.at(t, node+"fields"))}, " ")
		for _, o := range a.at(t, node+"old").([]any) {
			o := o.(map[string]any)
			line += fmt.Sprintf(" %v=%v", o["field"], o["value"])
		}
		lines = append(lines, line)
	}
	return lines
}

// A record's history is what was done to it, by whom, and what was there before: fields, links, its deletion and its end.
func TestHistory(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	a := c.by(t, "ada", `mutation { createThread(input: {subject: "one"}) { id } }`)
	id := a.at(t, "createThread.id")
	step := func(who, document string, version int, input object) {
		t.Helper()
		a := c.by(t, who, document, "id", id, "version", version, "input", input)
		require.Empty(t, a.Errors, a.raw)
	}
	step("ada", updateThread, 1, object{"subject": "two", "addMemberIDs": []string{c.ids["member"].String()}})
	step("ada", updateThread, 2, object{"addMemberIDs": []string{c.ids["author"].String()}, "removeMemberIDs": []string{c.ids["member"].String()}})
	step("ada", deleteThread, 3, nil)
	step("ada", restoreThread, 4, nil)
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, threadID(t, fmt.Sprint(id)), c.ids["hermit"].UUID)

	want := []string{
		"6 UPDATED - [owner] owner=" + c.ids["ada"].String(),
		"5 RESTORED ada [deletedAt] deletedAt=WHEN",
		"4 DELETED ada [deletedAt] deletedAt=<nil>",
		fmt.Sprintf("3 UPDATED ada [members] members=map[added:[%s] removed:[%s]]", c.ids["author"], c.ids["member"]),
		fmt.Sprintf("2 UPDATED ada [members subject] members=map[added:[%s] removed:[]] subject=one", c.ids["member"]),
		"1 CREATED ada []",
	}
	for _, who := range []string{"hermit", "author"} {
		a = c.by(t, who, readHistory, "id", id)
		got := a.told(t)
		require.Regexp(t, `deletedAt=\d{4}-.*Z$`, got[1])
		got[1] = got[1][:strings.Index(got[1], "=")+1] + "WHEN"
		require.Equal(t, want, got, who)
		require.Equal(t, true, a.at(t, "history.complete"))
		require.Equal(t, false, a.at(t, "history.pageInfo.hasNextPage"))
	}
	require.Regexp(t, `^\d{4}-\d\d-\d\dT.*Z$`, a.text(t, "history.edges.0.node.at"))

	// Page by page it is the same.
	var lines []string
	vars := []any{"id", id, "first", 2}
	for range 3 {
		a := c.by(t, "hermit", readHistory, vars...)
		require.Equal(t, len(lines) > 0, a.at(t, "history.pageInfo.hasPreviousPage"))
		lines = append(lines, a.told(t)...)
		require.Equal(t, len(lines) < 6, a.at(t, "history.pageInfo.hasNextPage"))
		require.Equal(t, a.at(t, "history.edges.1.cursor"), a.at(t, "history.pageInfo.endCursor"))
		vars = []any{"id", id, "first", 2, "after", a.text(t, "history.pageInfo.endCursor")}
	}
	require.Equal(t, c.by(t, "hermit", readHistory, "id", id).told(t), lines)
	require.Empty(t, c.by(t, "hermit", readHistory, "id", id, "first", 0).told(t))

	// Everybody else is told nothing, not even that it is there.
	for _, who := range []string{"ada", "member", "stranger", "admin", "anonymous"} {
		a := c.by(t, who, readHistory, "id", id)
		require.JSONEq(t, `{"history": null}`, string(a.Data), who)
	}
	for _, x := range []struct {
		argument string
		vars     []any
	}{
		{"first", []any{"id", id, "first", 101}}, {"first", []any{"id", id, "first", -1}}, {"after", []any{"id", id, "after", "x"}},
		{"after", []any{"id", c.ids["secret"], "after", a.text(t, "history.edges.0.cursor")}},
		{"id", []any{"id", "nothing_01jd0000000000000000000000"}},
	} {
		a := c.by(t, "hermit", readHistory, x.vars...)
		require.Equal(t, "BAD_USER_INPUT", a.Errors[0].code(), a.raw)
		require.Equal(t, []string{x.argument}, fields(a.Errors[0]), a.raw)
	}
}

// The history of a deleted record is for whoever may restore it; that of a record that had the same id before is nobody's.
func TestHistoryOfDeleted(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	shared := c.ids["shared"]
	require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
	require.Equal(t, "2 DELETED ada [deletedAt] deletedAt=<nil>", c.by(t, "ada", readHistory, "id", shared).told(t)[0])
	require.JSONEq(t, `{"history": null}`, string(c.by(t, "member", readHistory, "id", shared).Data))
	c.sql(t, `DELETE FROM threads WHERE id = $1`, shared.UUID)
	require.JSONEq(t, `{"history": null}`, string(c.by(t, "ada", readHistory, "id", shared).Data))
	c.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'new', $2)`, shared.UUID, c.ids["hermit"].UUID)
	c.sql(t, `UPDATE threads SET subject = 'newer' WHERE id = $1`, shared.UUID)
	a := c.by(t, "hermit", readHistory, "id", shared)
	require.Equal(t, []string{"2 UPDATED - [subject] subject=new", "1 CREATED - []"}, a.told(t))
	require.Equal(t, true, a.at(t, "history.complete"))
}

// What the log has forgotten is said to be missing.
func TestHistoryBeyondTheLog(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	secret := c.ids["secret"]
	require.Equal(t, true, c.by(t, "hermit", readHistory, "id", secret).at(t, "history.complete"))
	c.sql(t, `DELETE FROM changes WHERE id = $1 AND version = 1`, secret.UUID)
	a := c.by(t, "hermit", readHistory, "id", secret)
	require.Len(t, a.told(t), 1)
	require.Equal(t, false, a.at(t, "history.complete"))
	require.Equal(t, false, a.at(t, "history.pageInfo.hasNextPage"))
	c.sql(t, `DELETE FROM changes WHERE id = $1`, secret.UUID)
	a = c.by(t, "hermit", readHistory, "id", secret)
	require.Empty(t, a.told(t))
	require.Equal(t, false, a.at(t, "history.complete"))
	require.Nil(t, a.at(t, "history.pageInfo.endCursor"))
}

// Fields that not everybody reads are in nobody else's history; where an edge says who reads them, what was before the edge was
// changed is in nobody's.
func TestHistoryOfHiddenFields(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	member := c.ids["member"]
	c.sql(t, `UPDATE users SET role = 'moderator', name = 'New', password_hash = 'x' WHERE id = $1`, member.UUID)
	c.sql(t, `UPDATE users SET password_hash = 'y' WHERE id = $1`, member.UUID)
	for who, want := range map[string][]string{
		"member":   {"3 UPDATED - []", "2 UPDATED - [name role] name=member role=user", "1 CREATED - []"},
		"admin":    {"3 UPDATED - []", "2 UPDATED - [name role] name=member role=user", "1 CREATED - []"},
		"stranger": {"3 UPDATED - []", "2 UPDATED - [name] name=member", "1 CREATED - []"},
	} {
		require.Equal(t, want, c.by(t, who, readHistory, "id", member).told(t), who)
	}

	c = newCast(t, func(o *options) {
		o.change = func(s *ent.Stores) {
			for i := range s.Thread.Fields {
				if f := &s.Thread.Fields[i]; f.Name == "subject" {
					f.ReadableBy = new(entity.Any(entity.Is("owner"), entity.Role("moderator")))
				}
			}
		}
	})
	shared := c.ids["shared"]
	c.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, shared.UUID)
	c.sql(t, `UPDATE threads SET subject = 'three', owner_id = $2 WHERE id = $1`, shared.UUID, c.ids["author"].UUID)
	c.sql(t, `UPDATE threads SET subject = 'four' WHERE id = $1`, shared.UUID)
	c.sql(t, `INSERT INTO thread_members VALUES ($1, $2)`, shared.UUID, c.ids["moderator"].UUID)
	ada := c.ids["ada"].String()
	for who, want := range map[string][]string{
		"author":    {"[subject] subject=three", "[owner] owner=" + ada, "[]", "[members]"},
		"member":    {"[]", "[owner] owner=" + ada, "[]", "[members]"},
		"moderator": {"[subject] subject=three", "[owner subject] owner=" + ada + " subject=two", "[subject] subject=shared", "[members]"},
	} {
		var got []string
		for _, line := range c.by(t, who, readHistory, "id", shared).told(t)[1:] {
			_, rest, _ := strings.Cut(line, "[")
			got = append(got, "["+rest)
		}
		require.Equal(t, want, got, who)
	}
}

// An old edge is told only to who may read what it led to.
func TestHistoryOfEdgesToWhatIsNotRead(t *testing.T) {
	t.Parallel()
	c := newCast(t, func(o *options) {
		o.change = func(s *ent.Stores) { s.User.Access.Read = entity.Any(entity.Self(), entity.Role("moderator")) }
	})
	shared := c.ids["shared"]
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, shared.UUID, c.ids["author"].UUID)
	c.sql(t, `DELETE FROM thread_members WHERE thread_id = $1 AND user_id = $2`, shared.UUID, c.ids["author"].UUID)
	c.sql(t, `INSERT INTO thread_members VALUES ($1, $2), ($1, $3)`, shared.UUID, c.ids["moderator"].UUID, c.ids["ada"].UUID)
	both := []string{c.ids["moderator"].String(), c.ids["ada"].String()}
	if one[bool](t, c.bundle, `SELECT $1::uuid > $2::uuid`, c.ids["moderator"].UUID, c.ids["ada"].UUID) {
		both[0], both[1] = both[1], both[0]
	}
	for who, want := range map[string][]string{
		"ada": {fmt.Sprintf("4 UPDATED - [members] members=map[added:[%s] removed:[]]", c.ids["ada"]),
			"3 UPDATED - [members] members=map[added:[] removed:[]]", "2 UPDATED - [owner] owner=" + c.ids["ada"].String()},
		"author": {"4 UPDATED - [members] members=map[added:[] removed:[]]",
			fmt.Sprintf("3 UPDATED - [members] members=map[added:[] removed:[%s]]", c.ids["author"]), "2 UPDATED - [owner]"},
		"moderator": {fmt.Sprintf("4 UPDATED - [members] members=map[added:[%s %s] removed:[]]", both[0], both[1]),
			fmt.Sprintf("3 UPDATED - [members] members=map[added:[] removed:[%s]]", c.ids["author"]), "2 UPDATED - [owner] owner=" + c.ids["ada"].String()},
	} {
		require.Equal(t, want, c.by(t, who, readHistory, "id", shared).told(t)[:3], who)
	}
	// Nor who did it.
	a := c.by(t, "author", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 4, input: {subject: "mine"}) { id } }`, "id", shared)
	require.Empty(t, a.Errors, a.raw)
	require.Contains(t, c.by(t, "author", readHistory, "id", shared).told(t)[0], "5 UPDATED author")
	require.Contains(t, c.by(t, "ada", readHistory, "id", shared).told(t)[0], "5 UPDATED - ")
}

// Who loses the right to read a record loses its history, whole.
func TestHistoryIsLostWithTheRight(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	words := c.ids["words"]
	require.Len(t, c.by(t, "member", readHistory, "id", words).told(t), 1)
	c.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, c.ids["member"].UUID)
	require.JSONEq(t, `{"history": null}`, string(c.by(t, "member", readHistory, "id", words).Data))
	require.Len(t, c.by(t, "author", readHistory, "id", words).told(t), 1)
	require.Empty(t, c.by(t, "ada", deleteThread, "id", c.ids["shared"], "version", c.version(t, c.ids["shared"])).Errors)
	require.JSONEq(t, `{"history": null}`, string(c.by(t, "author", readHistory, "id", words).Data), "through a deleted thread")
}
