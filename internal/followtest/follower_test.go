package followtest

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document string
		events   []Event
		held     map[string]int
		resyncs  int
		wrong    []string
	}{
		"a record": {
			Thread, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 3}, {Kind: "UPDATED", RecordID: "a", Version: 4}}, map[string]int{"a": 4}, 0, nil,
		},
		"a list": {
			Threads, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "SNAPSHOT", RecordID: "b", Version: 2}, {Kind: "READY"}},
			map[string]int{"a": 1, "b": 2}, 0, nil,
		},
		"an incomplete list": {Threads, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}}, nil, 0, nil},
		"a gap": {
			Thread, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "UPDATED", RecordID: "a", Version: 3}}, map[string]int{"a": 3}, 0,
			[]string{"{Kind:UPDATED RecordID:a Cursor: Version:3}, holding 1"},
		},
		"twice": {
			Thread, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "UPDATED", RecordID: "a", Version: 1}}, map[string]int{"a": 1}, 0,
			[]string{"{Kind:UPDATED RecordID:a Cursor: Version:1}, holding 1"},
		},
		"a snapshot in between": {
			Thread, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "SNAPSHOT", RecordID: "a", Version: 2}}, map[string]int{"a": 2}, 0,
			[]string{"{Kind:SNAPSHOT RecordID:a Cursor: Version:2}, holding 1"},
		},
		"an update in a list that is incomplete": {
			Records, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "UPDATED", RecordID: "a", Version: 2}}, nil, 0,
			[]string{"{Kind:UPDATED RecordID:a Cursor: Version:2}, holding 1"},
		},
		"anew": {
			Records, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "READY"}, {Kind: "RESYNC"}, {Kind: "SNAPSHOT", RecordID: "b", Version: 5}, {Kind: "READY"}},
			map[string]int{"b": 5}, 1, nil,
		},
		"what is deleted": {
			Thread, []Event{{Kind: "SNAPSHOT", RecordID: "a", Version: 1}, {Kind: "DELETED", RecordID: "a", Version: 2}}, map[string]int{"a": 1}, 0,
			[]string{"{Kind:DELETED RecordID:a Cursor: Version:2}, holding 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &Follower{Document: c.document, opening: true}
			for _, e := range c.events {
				payload, err := json.Marshal(map[string]any{"data": map[string]any{"change": e}})
				require.NoError(t, err)
				require.NoError(t, f.take(payload))
			}
			require.Equal(t, c.held, f.Held())
			require.Equal(t, c.resyncs, f.Resyncs())
			require.Equal(t, c.wrong, f.Wrong())
			require.Equal(t, len(c.events), f.Events())
		})
	}
	require.Error(t, new(Follower).take([]byte(`{"data": null, "errors": [{"message": "no"}]}`)))
}
