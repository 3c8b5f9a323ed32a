package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

const (
	updateThread = `mutation($id: ID!, $version: Int!, $input: UpdateThreadInput!) {
		updateThread(id: $id, expectedVersion: $version, input: $input) { id version subject createdAt updatedAt members { edges { node { username } } } } }`
	deleteThread = `mutation($id: ID!, $version: Int!) { deleteThread(id: $id, expectedVersion: $version) { deletedId version } }`
	readThread   = `query($id: ID!) { thread(id: $id) { id version subject createdAt updatedAt owner { __typename id } } }`
)

// object is an input object.
type object = map[string]any

func TestWrite(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	a := b.ok(t, `mutation($input: CreateThreadInput!) { createThread(input: $input) {
		id version subject createdAt updatedAt owner { __typename id } members { edges { node { id } } } } }`,
		"input", object{"subject": "first", "memberIDs": []string{bob.String(), bob.String()}})
	require.Equal(t, 1, a.number(t, "createThread.version"))
	require.Equal(t, []string{bob.String()}, a.texts(t, "createThread.members", "id"))
	require.Equal(t, b.ada.String(), a.text(t, "createThread.owner.id"), "the viewer owns what he creates")
	id := a.text(t, "createThread.id")

	// A later read gives what the write answered, to the last digit.
	read := b.ok(t, readThread, "id", id)
	for _, field := range []string{"id", "version", "subject", "createdAt", "updatedAt", "owner"} {
		require.Equal(t, a.at(t, "createThread."+field), read.at(t, "thread."+field), field)
	}

	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$`, read.text(t, "thread.createdAt"), "in UTC")

	a = b.ok(t, updateThread, "id", id, "version", 1, "input", object{"subject": "second"})
	require.Equal(t, 2, a.number(t, "updateThread.version"))
	read = b.ok(t, readThread, "id", id)
	for _, field := range []string{"id", "version", "subject", "createdAt", "updatedAt"} {
		require.Equal(t, a.at(t, "updateThread."+field), read.at(t, "thread."+field), field)
	}
	require.Equal(t, "second", read.text(t, "thread.subject"))

	a = b.ok(t, deleteThread, "id", id, "version", 2)
	require.JSONEq(t, `{"deleteThread": {"deletedId": "`+id+`", "version": 3}}`, string(a.Data))
	require.JSONEq(t, `{"thread": null}`, string(b.ok(t, readThread, "id", id).Data))
	require.Equal(t, 3, one[int](t, b, `SELECT version FROM changes WHERE entity = 'thread' AND 'deleted_at' = ANY(fields)`), "as the receipt says")
	require.Equal(t, "NOT_FOUND", b.fails(t, deleteThread, "id", id, "version", 2).code())
	require.Equal(t, "NOT_FOUND", b.fails(t, updateThread, "id", id, "version", 2, "input", object{"subject": "x"}).code())
}

func TestConflict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	id := b.thread(t, "one")
	b.ok(t, updateThread, "id", id, "version", 1, "input", object{"subject": "two"})
	b.ok(t, updateThread, "id", id, "version", 2, "input", object{"addMemberIDs": []string{bob.String()}})

	// What a query answers now is what the error has to say.
	var now struct{ Thread json.RawMessage }
	read := b.ok(t, `query($id: ID!) { thread(id: $id) { __typename id version subject createdAt updatedAt deletedAt owner { __typename id } } }`, "id", id)
	require.NoError(t, json.Unmarshal(read.Data, &now))

	for _, c := range []struct {
		name, document string
		expected       int
		fields         string
	}{
		{"update", updateThread, 1, `["members", "subject"]`},
		{"update", updateThread, 2, `["members"]`},
		{"delete", deleteThread, 1, `["members", "subject"]`},
		{"a version that never was", updateThread, 9, `null`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := b.fails(t, c.document, "id", id, "version", c.expected, "input", object{"subject": "mine"})
			field := "updateThread"
			if c.document == deleteThread {
				field = "deleteThread"
			}
			require.Equal(t, field, err.path())
			require.NotEmpty(t, err.Extensions["requestId"])
			delete(err.Extensions, "requestId")
			got, e := json.Marshal(err.Extensions)
			require.NoError(t, e)
			require.JSONEq(t, fmt.Sprintf(`{"code": "CONFLICT", "type": "Thread", "id": %q, "expectedVersion": %d,
				"currentVersion": 3, "current": %s, "fields": %s}`, id, c.expected, now.Thread, c.fields), string(got))
		})
	}
	require.Equal(t, 3, b.version(t, id))

	// The log forgets after a time; then nobody can say what changed.
	b.sql(t, `DELETE FROM changes WHERE id = $1 AND version = 2`, id.UUID)
	err := b.fails(t, updateThread, "id", id, "version", 1, "input", object{"subject": "mine"})
	require.Contains(t, err.Extensions, "fields")
	require.Nil(t, err.Extensions["fields"])
	require.NotNil(t, err.Extensions["current"])
	err = b.fails(t, updateThread, "id", id, "version", 2, "input", object{"subject": "mine"})
	require.Equal(t, []any{"members"}, err.Extensions["fields"], "of later versions it still knows")

	// A change that leaves all as it was has a version, and no fields.
	b.sql(t, `UPDATE threads SET subject = subject WHERE id = $1`, id.UUID)
	err = b.fails(t, updateThread, "id", id, "version", 3, "input", object{"subject": "mine"})
	require.Equal(t, []any{}, err.Extensions["fields"])
}

// Every entity's conflict has the scalars that a query can ask for.
func TestConflictOfAUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sql(t, `UPDATE users SET name = 'Ada <"&">', role = 'admin' WHERE id = $1`, b.ada.UUID)
	err := b.fails(t, `mutation($id: ID!) { updateUser(id: $id, expectedVersion: 1, input: {name: "x"}) { id } }`, "id", b.ada)
	read := b.ok(t, `query($id: ID!) { user(id: $id) { __typename id version createdAt updatedAt email username name role
		emailVerifiedAt totpConfirmedAt lockedAt } }`, "id", b.ada)
	require.Equal(t, read.at(t, "user"), err.Extensions["current"])
	require.Equal(t, []any{"name", "role"}, err.Extensions["fields"])
}

func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "bob")
	id := b.thread(t, "thread")
	other := record.ID{Prefix: "user", UUID: entity.NewID()}
	const (
		createUser    = `mutation($input: CreateUserInput!) { createUser(input: $input) { id } }`
		updateUser    = `mutation($id: ID!, $version: Int!, $input: UpdateUserInput!) { updateUser(id: $id, expectedVersion: $version, input: $input) { id } }`
		createMessage = `mutation($input: CreateMessageInput!) { createMessage(input: $input) { id } }`
		createThread  = `mutation($input: CreateThreadInput!) { createThread(input: $input) { id } }`
	)
	for _, c := range []struct {
		name, document string
		id             any
		input          object
		code           string
		fields         []any
		message        string
	}{
		{"a name that is taken", createUser, nil, object{"email": "new@example.com", "username": "bob", "name": "x"},
			"ALREADY_EXISTS", []any{"username"}, "another record has this username"},
		{"an address that is taken", createUser, nil, object{"email": "bob@example.com", "username": "new", "name": "x"},
			"ALREADY_EXISTS", []any{"email"}, "another record has this email"},
		{"a name that is taken, by update", updateUser, b.ada, object{"username": "bob"},
			"ALREADY_EXISTS", []any{"username"}, "another record has this username"},
		{"no address", createUser, nil, object{"email": "nobody", "username": "new", "name": "x"},
			"BAD_USER_INPUT", []any{"email"}, "email: mail: missing '@' or angle-addr"},
		{"no name", updateUser, b.ada, object{"name": ""},
			"BAD_USER_INPUT", []any{"name"}, "name: value is less than the required length"},
		{"too long", createThread, nil, object{"subject": strings.Repeat("x", 201)},
			"BAD_USER_INPUT", []any{"subject"}, "subject: value is greater than the required length"},
		{"null for what is required", updateThread, id, object{"subject": nil},
			"BAD_USER_INPUT", []any{"subject"}, "subject must not be null"},
		{"a thread that does not exist", createMessage, nil, object{"body": "x", "threadID": record.ID{Prefix: "thread", UUID: entity.NewID()}.String()},
			"BAD_USER_INPUT", []any{"threadID"}, "threadID names a record that does not exist"},
		{"a member that does not exist", createThread, nil, object{"subject": "x", "memberIDs": []string{other.String()}},
			"BAD_USER_INPUT", []any{"memberIDs"}, "memberIDs names a record that does not exist"},
		{"a member that does not exist, by update", updateThread, id, object{"addMemberIDs": []string{other.String()}},
			"BAD_USER_INPUT", []any{"addMemberIDs"}, "addMemberIDs names a record that does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			vars := []any{"input", c.input}
			if c.id != nil {
				vars = append(vars, "id", c.id, "version", 1)
			}
			err := b.fails(t, c.document, vars...)
			require.Equal(t, c.code, err.code(), err.Message)
			require.Equal(t, c.fields, err.Extensions["fields"])
			require.Equal(t, c.message, err.Message)
		})
	}

	a := b.as(t, "-", createThread, "input", object{"subject": "x"})
	require.Equal(t, "UNAUTHENTICATED", a.Errors[0].code(), "a thread has an owner")
	a = b.as(t, entity.NewID().String(), createThread, "input", object{"subject": "x"})
	require.Equal(t, "UNAUTHENTICATED", a.Errors[0].code(), "who is there")
	require.Equal(t, 1, b.version(t, id))
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
	require.NotContains(t, b.log.String(), "level=ERROR")
}

func TestDeleteOfWhatIsReferredTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.thread(t, "thread")
	err := b.fails(t, `mutation($id: ID!) { deleteUser(id: $id, expectedVersion: 1) { deletedId } }`, "id", b.ada)
	require.Equal(t, "BAD_USER_INPUT", err.code())
	require.Equal(t, []any{"id"}, err.Extensions["fields"])
	require.Equal(t, "the User is still referred to by threads", err.Message)
}

func TestManagedFieldsAreInNoInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, input := range []string{"CreateThreadInput", "UpdateThreadInput", "CreateUserInput", "UpdateUserInput"} {
		a := b.ok(t, `query($name: String!) { __type(name: $name) { inputFields { name } } }`, "name", input)
		for _, f := range a.at(t, "__type.inputFields").([]any) {
			require.NotContains(t, []string{"id", "version", "createdAt", "updatedAt", "owner", "ownerID", "role"}, f.(map[string]any)["name"])
		}
	}
	for _, field := range []string{`version: 7`, `id: "x"`, `createdAt: "2026-01-01T00:00:00Z"`, `updatedAt: "2026-01-01T00:00:00Z"`, `ownerID: "x"`} {
		err := b.fails(t, `mutation { createThread(input: {subject: "x", `+field+`}) { id } }`)
		require.Equal(t, "GRAPHQL_VALIDATION_FAILED", err.code(), field)
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob, eve, mel := b.user(t, "bob"), b.user(t, "eve"), b.user(t, "mel")
	id := b.thread(t, "thread", bob)
	ids := func(ids ...record.ID) []string {
		s := []string{}
		for _, id := range ids {
			s = append(s, id.String())
		}
		return s
	}
	version := 1
	for _, c := range []struct {
		name    string
		input   object
		members []string
		fields  []string
	}{
		{"add alone", object{"addMemberIDs": ids(eve)}, []string{"bob", "eve"}, []string{"members"}},
		{"who is one", object{"addMemberIDs": ids(eve)}, []string{"bob", "eve"}, []string{}},
		{"one twice", object{"addMemberIDs": ids(mel, mel, mel)}, []string{"bob", "eve", "mel"}, []string{"members"}},
		{"remove", object{"removeMemberIDs": ids(eve, eve)}, []string{"bob", "mel"}, []string{"members"}},
		{"remove who is none", object{"removeMemberIDs": ids(eve)}, []string{"bob", "mel"}, []string{}},
		{"with a field", object{"addMemberIDs": ids(eve), "subject": "new"}, []string{"bob", "eve", "mel"}, []string{"members", "subject"}},
		{"clear and add", object{"clearMembers": true, "addMemberIDs": ids(mel)}, []string{"mel"}, []string{"members"}},
		{"clear", object{"clearMembers": true}, []string{}, []string{"members"}},
		{"not clear", object{"clearMembers": false, "addMemberIDs": nil, "removeMemberIDs": []string{}}, []string{}, []string{}},
		{"a plain UUID", object{"addMemberIDs": []string{bob.UUID.String()}}, []string{"bob"}, []string{"members"}},
		{"nothing", object{}, []string{"bob"}, []string{}},
	} {
		a := b.ok(t, updateThread, "id", id, "version", version, "input", c.input)
		version++
		require.Equal(t, version, a.number(t, "updateThread.version"), c.name)
		require.ElementsMatch(t, c.members, a.texts(t, "updateThread.members", "username"), c.name)
		fields := one[[]string](t, b, `SELECT fields FROM changes WHERE id = $1 AND version = $2`, id.UUID, version)
		require.ElementsMatch(t, c.fields, fields, c.name)
	}
	require.Equal(t, version, b.version(t, id))
	err := b.fails(t, updateThread, "id", id, "version", 1, "input", object{"addMemberIDs": ids(eve)})
	require.Equal(t, "CONFLICT", err.code(), "links are versioned like fields")
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM thread_members WHERE thread_id = $1`, id.UUID))
}

func TestOneWriterWins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.thread(t, "thread")
	const writers = 64
	var won atomic.Int32
	winner := make(chan string, writers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range writers {
		wg.Go(func() {
			<-start
			subject := fmt.Sprint("writer ", i)
			a, err := b.post(context.Background(), "", encode(updateThread, []any{"id", id, "version", 1, "input", object{"subject": subject}}))
			switch {
			case err != nil:
				t.Error(err)
			case len(a.Errors) == 0:
				won.Add(1)
				winner <- subject
			case a.Errors[0].code() != "CONFLICT" || fmt.Sprint(a.Errors[0].Extensions["currentVersion"]) != "2":
				t.Error(a.raw)
			}
		})
	}
	close(start)
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
	require.Equal(t, <-winner, b.subject(t, id))
	require.Equal(t, 2, b.version(t, id))
}

func TestNoLostUpdate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.thread(t, "0")
	const writers, increments, retries = 32, 100, 20_000
	increment := func() error {
		current, version := "0", json.Number("1")
		for range retries {
			var n int
			_, _ = fmt.Sscan(current, &n)
			a, err := b.post(context.Background(), "", encode(updateThread,
				[]any{"id", id, "version", version, "input", object{"subject": fmt.Sprint(n + 1)}}))
			if err != nil || len(a.Errors) == 0 {
				return err
			}
			if a.Errors[0].code() != "CONFLICT" {
				return fmt.Errorf("%s", a.raw)
			}
			now := a.Errors[0].Extensions["current"].(map[string]any)
			current, version = now["subject"].(string), now["version"].(json.Number)
		}
		return fmt.Errorf("lost %d times in a row", retries)
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range increments {
				if err := increment(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, fmt.Sprint(writers*increments), b.subject(t, id))
	require.Equal(t, writers*increments+1, b.version(t, id))
	require.Equal(t, writers*increments+1, one[int](t, b, `SELECT count(DISTINCT version) FROM changes WHERE id = $1`, id.UUID))
}
