package record_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
)

const (
	restoreThread = `mutation($id: ID!, $version: Int!) { restoreThread(id: $id, expectedVersion: $version) { id version subject deletedAt } }`
	listThreads   = `query($deleted: ShowDeleted) { threads(deleted: $deleted) { totalCount edges { node { subject } } } }`
	followDeleted = `subscription($deleted: ShowDeleted, $since: Cursor) { threadsChanged(deleted: $deleted, since: $since) {
		kind recordId version cursor fields thread { id version subject } } }`
)

// A deleted record is hidden wherever records show, and so is what is read through it; then it is as it was.
func TestDeletedIsHidden(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	shared, words := c.ids["shared"], c.ids["words"]
	type reading struct {
		name, document string
		vars           []any
		hidden         string
	}
	readings := []reading{
		{"by id", `query($id: ID!) { thread(id: $id) { subject } }`, []any{"id", shared}, `{"thread": null}`},
		{"node", `query($id: ID!) { node(id: $id) { ... on Thread { subject } } }`, []any{"id", shared}, `{"node": null}`},
		{"nodes", `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, []any{"ids", []string{shared.String(), words.String()}}, `{"nodes": [null, null]}`},
		{"record map", `query($refs: [RecordRef!]!) { records(refs: $refs) { threads { subject } messages { body } missing } }`,
			[]any{"refs", refs(shared, words)}, `{"records": {"threads": [], "messages": [], "missing": ["` + shared.String() + `", "` + words.String() + `"]}}`},
		{"list", `{ threads { totalCount edges { node { subject } } } }`, nil, `{"threads": {"totalCount": 0, "edges": []}}`},
		{"list by condition", `{ threads(where: {subject: "shared"}) { totalCount edges { node { subject } } } }`, nil, `{"threads": {"totalCount": 0, "edges": []}}`},
		{"edge of many", `query($id: ID!) { user(id: $id) { threads { totalCount edges { node { subject } } } ownedThreads { totalCount edges { node { subject } } } } }`,
			[]any{"id", c.ids["ada"]}, `{"user": {"threads": {"totalCount": 0, "edges": []}, "ownedThreads": {"totalCount": 0, "edges": []}}}`},
		{"filter by edge", `{ users(where: {hasOwnedThreads: true}) { totalCount } }`, nil, `{"users": {"totalCount": 0}}`},
		{"what is read through it", `query($id: ID!) { message(id: $id) { body thread { subject } } messages { totalCount } }`,
			[]any{"id", words}, `{"message": null, "messages": {"totalCount": 0}}`},
		{"filter through it", `{ messages(where: {hasThreadWith: [{subject: "shared"}]}) { totalCount } }`, nil, `{"messages": {"totalCount": 0}}`},
	}
	was := map[string]string{}
	for _, r := range readings {
		a := c.by(t, "ada", r.document, r.vars...)
		require.Empty(t, a.Errors, a.raw)
		was[r.name] = string(a.Data)
		require.NotEqual(t, strings.Join(strings.Fields(r.hidden), ""), strings.Join(strings.Fields(was[r.name]), ""), r.name)
	}

	a := c.by(t, "ada", deleteThread, "id", shared, "version", 1)
	require.JSONEq(t, fmt.Sprintf(`{"deleteThread": {"deletedId": %q, "version": 2}}`, shared), string(a.Data))
	require.Equal(t, 1, one[int](t, c.bundle, `SELECT count(*) FROM threads WHERE id = $1 AND deleted_at IS NOT NULL AND version = 2`, shared.UUID))
	for _, r := range readings {
		for _, who := range []string{"ada", "member"} {
			if who == "member" && strings.Contains(r.name, "edge") {
				continue // of who is ada
			}
			a := c.by(t, who, r.document, r.vars...)
			require.Empty(t, a.Errors, a.raw)
			require.JSONEq(t, r.hidden, string(a.Data), "%s as %s", r.name, who)
		}
	}
	// Nor is it written to, and nothing is put into it.
	for _, who := range []string{"ada", "member", "admin"} {
		c.refused(t, who, "NOT_FOUND", renameThread, "id", shared)
		c.refused(t, who, "NOT_FOUND", deleteThread, "id", shared, "version", 2)
		c.refused(t, who, "NOT_FOUND", deleteThread, "id", shared, "version", 1)
	}
	require.Equal(t, []string{"threadID"}, fields(c.refused(t, "member", "BAD_USER_INPUT", createMessage, "thread", shared)))
	c.refused(t, "author", "NOT_FOUND", updateMessage, "id", words, "version", 1)
	for _, who := range []string{"ada", "member"} {
		require.Equal(t, "NOT_FOUND", mergeCode(c, t, who, shared))
	}

	a = c.by(t, "ada", restoreThread, "id", shared, "version", 2)
	require.Empty(t, a.Errors, a.raw)
	require.JSONEq(t, fmt.Sprintf(`{"restoreThread": {"id": %q, "version": 3, "subject": "shared", "deletedAt": null}}`, shared), string(a.Data))
	for _, r := range readings {
		a := c.by(t, "ada", r.document, r.vars...)
		require.Equal(t, was[r.name], string(a.Data), r.name)
	}
}

func fields(e apiError) (names []string) {
	for _, f := range e.Extensions["fields"].([]any) {
		names = append(names, fmt.Sprint(f))
	}
	return names
}

// mergeCode is what a merging update answers.
func mergeCode(c *cast, t *testing.T, who string, id record.ID) string {
	t.Helper()
	a := c.by(t, who, `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "x"}, onConflict: MERGE) { id } }`, "id", id)
	require.Len(t, a.Errors, 1, a.raw)
	return a.Errors[0].code()
}

// Deleted records are listed for who may restore them and asks, with what they lead to; for nobody else.
func TestDeletedIsListedForWhoMayRestore(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	other := c.share(t)
	c.sql(t, `UPDATE threads SET subject = 'other' WHERE id = $1`, other.UUID)
	require.Empty(t, c.by(t, "ada", deleteThread, "id", c.ids["shared"], "version", 1).Errors)
	for _, x := range []struct{ who, deleted, want string }{
		{"ada", "EXCLUDE", "other"}, {"ada", "INCLUDE", "shared other"}, {"ada", "ONLY", "shared"},
		{"member", "EXCLUDE", "other"}, {"member", "INCLUDE", "other"}, {"member", "ONLY", ""},
		{"admin", "ONLY", ""}, {"hermit", "ONLY", ""}, {"hermit", "INCLUDE", "secret"}, {"anonymous", "ONLY", ""},
	} {
		a := c.by(t, x.who, listThreads, "deleted", x.deleted)
		require.Empty(t, a.Errors, a.raw)
		require.Equal(t, x.want, strings.Join(a.texts(t, "threads", "subject"), " "), "%s %s", x.who, x.deleted)
		require.Len(t, strings.Fields(x.want), a.number(t, "threads.totalCount"), "%s %s", x.who, x.deleted)
	}
	// Behind an edge as well, and with its messages; the members' other threads are those that are not deleted.
	a := c.by(t, "ada", `query($id: ID!) { user(id: $id) { ownedThreads(deleted: ONLY) { totalCount edges { node { subject deletedAt
		messages { totalCount edges { node { body } } } owner { ownedThreads { edges { node { subject } } } } } } } } }`, "id", c.ids["ada"])
	require.Empty(t, a.Errors, a.raw)
	require.Equal(t, 1, a.number(t, "user.ownedThreads.totalCount"))
	require.NotNil(t, a.at(t, "user.ownedThreads.edges.0.node.deletedAt"))
	require.Equal(t, []string{"words", "reply"}, a.texts(t, "user.ownedThreads.edges.0.node.messages", "body"))
	require.Equal(t, []string{"other"}, a.texts(t, "user.ownedThreads.edges.0.node.owner.ownedThreads", "subject"))
	a = c.by(t, "member", `query($id: ID!) { user(id: $id) { threads(deleted: INCLUDE) { totalCount edges { node { subject } } } } }`, "id", c.ids["member"])
	require.Equal(t, []string{"other"}, a.texts(t, "user.threads", "subject"))
	// In the order of their deletion, page by page, with conditions on it.
	require.Empty(t, c.by(t, "ada", deleteThread, "id", other, "version", 2).Errors)
	a = c.by(t, "ada", `{ threads(deleted: ONLY, first: 1, orderBy: [{field: DELETED_AT, direction: DESC}]) {
		edges { node { subject } } pageInfo { hasNextPage endCursor } } }`)
	require.Equal(t, []string{"other"}, a.texts(t, "threads", "subject"))
	a = c.by(t, "ada", `query($after: Cursor) { threads(deleted: ONLY, first: 1, after: $after, orderBy: [{field: DELETED_AT, direction: DESC}]) {
		edges { node { subject } } pageInfo { hasNextPage } } }`, "after", a.text(t, "threads.pageInfo.endCursor"))
	require.Equal(t, []string{"shared"}, a.texts(t, "threads", "subject"))
	require.Equal(t, false, a.at(t, "threads.pageInfo.hasNextPage"))
	a = c.by(t, "ada", `{ threads(deleted: INCLUDE, where: {deletedAtNotNil: true}) { totalCount } }`)
	require.Equal(t, 2, a.number(t, "threads.totalCount"))
}

// What restore answers to whom, and who restores where the entity says so.
func TestRestore(t *testing.T) {
	t.Parallel()
	t.Run("whoever may delete", func(t *testing.T) {
		t.Parallel()
		c := newCast(t)
		shared := c.ids["shared"]
		e := c.refused(t, "ada", "BAD_USER_INPUT", restoreThread, "id", shared, "version", 1)
		require.Equal(t, shared.String()+" is not deleted", e.Message)
		c.refused(t, "member", "FORBIDDEN", restoreThread, "id", shared, "version", 1)
		require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
		c.refused(t, "anonymous", "UNAUTHENTICATED", restoreThread, "id", shared, "version", 2)
		for _, who := range []string{"member", "stranger", "admin"} {
			c.refused(t, who, "NOT_FOUND", restoreThread, "id", shared, "version", 2)
		}
		c.refused(t, "ada", "BAD_USER_INPUT", restoreThread, "id", shared, "version", 0)
		for _, wrong := range []int{1, 3} {
			e := c.refused(t, "ada", "CONFLICT", restoreThread, "id", shared, "version", wrong)
			require.Equal(t, "2", fmt.Sprint(e.Extensions["currentVersion"]))
			current := e.Extensions["current"].(map[string]any)
			require.Equal(t, "shared", current["subject"])
			require.NotNil(t, current["deletedAt"])
			if wrong == 1 {
				require.Equal(t, []any{"deletedAt"}, e.Extensions["fields"])
			}
		}
		require.Empty(t, c.by(t, "ada", restoreThread, "id", shared, "version", 2).Errors)
		c.refused(t, "ada", "CONFLICT", restoreThread, "id", shared, "version", 2)
		c.refused(t, "ada", "NOT_FOUND", restoreThread, "id", record.ID{Prefix: "thread", UUID: entity.NewID()}, "version", 2)
		// An update that was based on what there was before merges with the deletion and its end.
		a := c.by(t, "ada", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "merged"}, onConflict: MERGE) { version subject } }`, "id", shared)
		require.Empty(t, a.Errors, a.raw)
		require.Equal(t, 4, a.number(t, "updateThread.version"))
	})
	t.Run("somebody else", func(t *testing.T) {
		t.Parallel()
		by := entity.Any(entity.Has("members"), entity.Role("moderator"))
		c := newCast(t, func(o *options) {
			o.change = func(s *ent.Stores) { s.Thread.Restore = &by }
		})
		shared := c.ids["shared"]
		require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
		c.refused(t, "ada", "NOT_FOUND", restoreThread, "id", shared, "version", 2)
		c.refused(t, "moderator", "NOT_FOUND", restoreThread, "id", shared, "version", 2) // who may not read threads
		require.Empty(t, c.by(t, "ada", listThreads, "deleted", "ONLY").texts(t, "threads", "subject"))
		require.Equal(t, []string{"shared"}, c.by(t, "author", listThreads, "deleted", "ONLY").texts(t, "threads", "subject"))
		require.Empty(t, c.by(t, "author", restoreThread, "id", shared, "version", 2).Errors)
		c.refused(t, "ada", "FORBIDDEN", restoreThread, "id", shared, "version", 3)
	})
}

// Of many who delete, restore and change one version, one does.
func TestRacesOfDeleteRestoreAndUpdate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.thread(t, "one")
	const many = 24
	version := 1
	for round := range 12 {
		deleted := round%3 == 1 // the second of three begins with a deleted record
		if deleted {
			b.ok(t, deleteThread, "id", id, "version", version)
			version++
		}
		var (
			wg    sync.WaitGroup
			codes [many]string
		)
		for i := range many {
			document, vars := deleteThread, []any{"id", id, "version", version}
			switch {
			case deleted:
				document = restoreThread
			case i%2 == 0:
				document, vars = updateThread, append(vars, "input", object{"subject": fmt.Sprint("by ", i)})
			}
			wg.Go(func() {
				a, err := b.post(context.Background(), "", encode(document, vars))
				switch {
				case err != nil:
					codes[i] = err.Error()
				case len(a.Errors) > 0:
					codes[i] = a.Errors[0].code()
				}
			})
		}
		wg.Wait()
		done := 0
		for _, code := range codes {
			if code == "" {
				done++
				continue
			}
			require.Contains(t, []string{"CONFLICT", "NOT_FOUND"}, code)
		}
		require.Equal(t, 1, done, codes)
		version++
		require.Equal(t, version, one[int](t, b, `SELECT version FROM threads WHERE id = $1`, id.UUID))
		if one[bool](t, b, `SELECT deleted_at IS NOT NULL FROM threads WHERE id = $1`, id.UUID) {
			b.ok(t, restoreThread, "id", id, "version", version)
			version++
		}
	}
	require.Equal(t, version, one[int](t, b, `SELECT count(*) FROM changes WHERE id = $1`, id.UUID), "each version once")
}

// Streams are told of a deletion with its version, and of the restored record as of a new one; one of that record alone ends with it.
func TestStreamsOfDeletedRecords(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared := c.ids["shared"]
	x := short(shared)
	ada, member := c.ids["ada"].UUID, c.ids["member"].UUID
	single := c.tailAs(t, member, followThread, "id", shared)
	single.expect(t, "SNAPSHOT "+x+" v1")
	list := c.tailAs(t, member, followThreads)
	list.expect(t, "SNAPSHOT "+x+" v1", "READY  v-")
	named := c.tailAs(t, member, followRecords, "refs", refs(shared))
	named.expect(t, "SNAPSHOT "+x+" v1", "READY  v-")
	through := c.tailAs(t, member, followRecords, "refs", refs(c.ids["words"]))
	through.expect(t, "SNAPSHOT "+short(c.ids["words"])+" v1", "READY  v-")
	messages := c.tailAs(t, member, followMessages, "where", object{"threadID": shared.String()})
	messages.expect(t, "SNAPSHOT "+short(c.ids["words"])+" v1", "SNAPSHOT "+short(c.ids["reply"])+" v1", "READY  v-")
	trash := c.tailAs(t, ada, followDeleted, "deleted", "ONLY")
	trash.expect(t, "READY  v-")
	theirs := c.tailAs(t, member, followDeleted, "deleted", "ONLY")
	theirs.expect(t, "READY  v-")
	both := c.tailAs(t, ada, followDeleted, "deleted", "INCLUDE")
	both.expect(t, "SNAPSHOT "+x+" v1", "READY  v-")

	require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
	single.expect(t, "DELETED "+x+" v2")
	require.NoError(t, single.end(t))
	list.expect(t, "DELETED "+x+" v2")
	named.expect(t, "DELETED "+x+" v2")
	through.expect(t, "DELETED "+short(c.ids["words"])+" v-")
	messages.expect(t, "RESYNC  v-", "READY  v-")
	trash.expect(t, "CREATED "+x+" v2 deletedAt")
	both.expect(t, "UPDATED "+x+" v2 deletedAt")
	_, err := c.stream(t, member, followThread, "id", shared)
	var refusal *record.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, record.NotFound, refusal.Code)
	late := c.tailAs(t, ada, followDeleted, "deleted", "ONLY")
	late.expect(t, "SNAPSHOT "+x+" v2", "READY  v-")

	// What is done to a deleted record by hand is for who asks for deleted ones.
	c.sql(t, `UPDATE threads SET subject = 'by hand' WHERE id = $1`, shared.UUID)
	trash.expect(t, "UPDATED "+x+" v3 subject")
	both.expect(t, "UPDATED "+x+" v3 subject")

	require.Empty(t, c.by(t, "ada", restoreThread, "id", shared, "version", 3).Errors)
	list.expect(t, "CREATED "+x+" v4 deletedAt")
	named.expect(t, "CREATED "+x+" v4 deletedAt")
	through.expect(t, "CREATED "+short(c.ids["words"])+" v1")
	messages.expect(t, "RESYNC  v-", "SNAPSHOT "+short(c.ids["words"])+" v1", "SNAPSHOT "+short(c.ids["reply"])+" v1", "READY  v-")
	trash.expect(t, "DELETED "+x+" v-")
	both.expect(t, "UPDATED "+x+" v4 deletedAt")

	// Who may restore no thread has heard nothing all the time.
	c.sql(t, `UPDATE threads SET owner_id = $2, deleted_at = now() WHERE id = $1`, shared.UUID, member)
	theirs.expect(t, "CREATED "+x+" v5 deletedAt,owner")
	messages.expect(t, "RESYNC  v-", "READY  v-")
}

// Who comes back with a cursor is told what streams that stayed were told, across a deletion and its end.
func TestStreamsResumeAcrossDeletionAndRestore(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared := c.ids["shared"]
	x := short(shared)
	member, ada := c.ids["member"].UUID, c.ids["ada"].UUID
	single := c.tailAs(t, member, followThread, "id", shared)
	one := single.expect(t, "SNAPSHOT "+x+" v1")
	list := c.tailAs(t, member, followThreads)
	all := list.expect(t, "SNAPSHOT "+x+" v1", "READY  v-")
	named := c.tailAs(t, member, followRecords, "refs", refs(shared))
	some := named.expect(t, "SNAPSHOT "+x+" v1", "READY  v-")
	trash := c.tailAs(t, ada, followDeleted, "deleted", "ONLY")
	gone := trash.expect(t, "READY  v-")

	require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
	deleted := list.expect(t, "DELETED "+x+" v2")
	trash.expect(t, "CREATED "+x+" v2 deletedAt")
	back := c.tailAs(t, member, followThread, "id", shared, "since", one.Cursor)
	back.expect(t, "DELETED "+x+" v2")
	require.NoError(t, back.end(t))
	c.tailAs(t, member, followThreads, "since", all.Cursor).expect(t, "DELETED "+x+" v2", "READY  v-")
	c.tailAs(t, member, followRecords, "refs", refs(shared), "since", some.Cursor).expect(t, "DELETED "+x+" v2", "READY  v-")
	c.tailAs(t, ada, followDeleted, "deleted", "ONLY", "since", gone.Cursor).expect(t, "CREATED "+x+" v2 deletedAt", "READY  v-")

	require.Empty(t, c.by(t, "ada", restoreThread, "id", shared, "version", 2).Errors)
	list.expect(t, "CREATED "+x+" v3 deletedAt")
	back = c.tailAs(t, member, followThread, "id", shared, "since", one.Cursor)
	back.expect(t, "DELETED "+x+" v2")
	require.NoError(t, back.end(t), "as who stayed was told")
	c.tailAs(t, member, followThreads, "since", all.Cursor).expect(t, "DELETED "+x+" v2", "CREATED "+x+" v3 deletedAt", "READY  v-")
	c.tailAs(t, member, followThreads, "since", deleted.Cursor).expect(t, "CREATED "+x+" v3 deletedAt", "READY  v-")
	c.tailAs(t, member, followRecords, "refs", refs(shared), "since", some.Cursor).
		expect(t, "DELETED "+x+" v2", "CREATED "+x+" v3 deletedAt", "READY  v-")
	// What has come and gone meanwhile may not be shown any more.
	c.tailAs(t, ada, followDeleted, "deleted", "ONLY", "since", gone.Cursor).expect(t, "DELETED "+x+" v-", "READY  v-")
}

// Whoever hears of a deletion might have read the record: it is not numbered for anybody else, nor told.
func TestDeletionIsNotToldToStrangers(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared := c.ids["shared"]
	s := c.tailAs(t, c.ids["stranger"].UUID, followRecords, "refs", refs(shared, c.ids["stranger"]))
	s.expect(t, "DELETED "+short(shared)+" v-", "SNAPSHOT "+short(c.ids["stranger"])+" v1", "READY  v-")
	list := c.tailAs(t, c.ids["hermit"].UUID, followThreads)
	list.expect(t, "SNAPSHOT "+short(c.ids["secret"])+" v2", "READY  v-")
	require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
	require.Empty(t, c.by(t, "ada", restoreThread, "id", shared, "version", 2).Errors)
	c.sql(t, `UPDATE users SET name = 'new' WHERE id = $1`, c.ids["stranger"].UUID)
	s.expect(t, "UPDATED "+short(c.ids["stranger"])+" v2 name")
	c.sql(t, `UPDATE threads SET subject = 'new' WHERE id = $1`, c.ids["secret"].UUID)
	list.expect(t, "UPDATED "+short(c.ids["secret"])+" v3 subject")
}

// A row that is deleted in SQL is gone for good, also where it was deleted before.
func TestDeletedForGood(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared := c.ids["shared"]
	trash := c.tailAs(t, c.ada.UUID, followDeleted, "deleted", "ONLY")
	trash.expect(t, "READY  v-")
	list := c.tailAs(t, c.ada.UUID, followThreads)
	list.expect(t, "SNAPSHOT "+short(shared)+" v1", "READY  v-")
	require.Empty(t, c.by(t, "ada", deleteThread, "id", shared, "version", 1).Errors)
	list.expect(t, "DELETED "+short(shared)+" v2")
	c.sql(t, `DELETE FROM threads WHERE id = $1`, shared.UUID)
	trash.expect(t, "CREATED "+short(shared)+" v2 deletedAt", "DELETED "+short(shared)+" v3")
	c.refused(t, "ada", "NOT_FOUND", restoreThread, "id", shared, "version", 2)
	id := c.thread(t, "next")
	list.expect(t, "CREATED "+short(id)+" v1")
}
