package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

// fakeReplica runs a query twice, as where the standby fails. Its tokens are letters.
type fakeReplica struct{ asked []string }

type readingKey struct{}

func (f *fakeReplica) ReadAfter(ctx context.Context, token string, query func(context.Context)) (string, error) {
	f.asked = append(f.asked, token)
	if token == "bad" {
		return "", &record.Error{Code: record.BadUserInput, Message: "no token", Err: errors.New("it is bad")}
	}
	query(context.WithValue(ctx, readingKey{}, "standby"))
	query(context.WithValue(ctx, readingKey{}, "primary"))
	return "r", nil
}

func (f *fakeReplica) Token(context.Context) string { return "w" }

func TestReadAfter(t *testing.T) {
	t.Parallel()
	fake := &fakeReplica{}
	b := setup(t, withCookies, func(d *Deps, _ *Config) { d.Replica = fake })
	where := ""
	b.resolvers["ok"] = func(ctx context.Context) (any, error) {
		where, _ = ctx.Value(readingKey{}).(string)
		if where == "standby" {
			return nil, errors.New("what is answered first does not count")
		}
		return true, nil
	}
	b.resolvers["rename"] = func(ctx context.Context) (any, error) {
		where, _ = ctx.Value(readingKey{}).(string)
		return nil, &record.Error{Code: record.Conflict}
	}
	const mutation = `mutation { rename(id: 1, expectedVersion: 1) }`
	for _, c := range []struct {
		document      string
		header        []string
		asked         string
		where, answer string
		status        int
	}{
		{`{ ok }`, nil, "", "", "", 200},
		{`{ ok }`, []string{"Read-After", ""}, "", "primary", "r", 200},
		{`{ ok }`, []string{"Read-After", "q"}, "q", "primary", "r", 200},
		{`{ ok }`, []string{"Read-After", "bad"}, "bad", "", "", 400},
		{mutation, nil, "", "", "w", 200}, // an error tells what is there as well
		{mutation, []string{"Read-After", "bad"}, "", "", "w", 200},
	} {
		where, fake.asked = "", nil
		a := b.query(t, c.document, nil, c.header...)
		require.Equal(t, c.status, a.Status)
		require.Equal(t, c.answer, a.Header.Get("Read-After"))
		require.Equal(t, c.where, where)
		if c.where == "" && c.asked == "" {
			require.Empty(t, fake.asked)
		} else {
			require.Equal(t, []string{c.asked}, fake.asked)
		}
	}

	// What caches keep is nobody's who says what they have seen.
	query := url.Values{"query": {`{ ok }`}}
	a := b.do(t, get(t, query))
	require.Empty(t, a.Header.Get("Cache-Control"))
	require.Contains(t, a.Header["Vary"], "Read-After")
	require.Equal(t, "no-store", b.do(t, get(t, query, "Read-After", "q")).Header.Get("Cache-Control"))

	// Pages of other origins say it and are told.
	require.Contains(t, b.do(t, preflight("/graphql", "https://app.example")).Header.Get("Access-Control-Allow-Headers"), "Read-After")
	a = b.query(t, `{ ok }`, nil, "Origin", "https://app.example")
	require.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), "Read-After")

	// Without a replica it is nothing.
	a = setup(t).do(t, get(t, query, "Read-After", "bad"))
	require.Equal(t, http.StatusOK, a.Status)
	require.Empty(t, a.Header.Get("Read-After"))
	require.Empty(t, a.Header.Get("Cache-Control"))
}
