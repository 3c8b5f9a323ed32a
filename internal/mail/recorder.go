package mail

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// kept is how many mails a Recorder keeps.
const kept = 500

// Recorder is a Queue and a Sender that sends nothing and keeps the last 500 mails in memory, for development and tests. It knows
// nothing of the transaction: a mail stays even if that is rolled back. The zero value is ready; it is safe for
// concurrent use.
type Recorder struct {
	mu      sync.Mutex    // protects what follows
	last    int           // id of the newest
	mails   []recorded    // oldest first
	arrived chan struct{} // closed at the next mail; nil where nobody waits
}

type recorded struct {
	ID int       `json:"id"` // from 1
	At time.Time `json:"at"`
	Message
	Links []string `json:"links"`
}

var (
	_ Queue  = (*Recorder)(nil)
	_ Sender = (*Recorder)(nil)
)

// Enqueue keeps m, or returns the error of [Message.Validate].
func (r *Recorder) Enqueue(_ context.Context, _ pgx.Tx, m Message) error { return r.keep(m) }

// Send keeps m, or returns a permanent error of [Message.Validate].
func (r *Recorder) Send(_ context.Context, m Message) error {
	if err := r.keep(m); err != nil {
		return &SendError{Kind: m.Kind, Permanent: true, Err: err}
	}
	return nil
}

func (r *Recorder) keep(m Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	if len(r.mails) == kept {
		r.mails = slices.Delete(r.mails, 0, 1)
	}
	r.mails = append(r.mails, recorded{ID: r.last, At: time.Now().UTC(), Message: m, Links: append([]string{}, m.Links()...)})
	if r.arrived != nil {
		close(r.arrived)
		r.arrived = nil
	}
	return nil
}

// Messages returns what is kept, newest first.
func (r *Recorder) Messages() []Message {
	all, _ := r.snapshot()
	messages := make([]Message, len(all))
	for i := range all {
		messages[i] = all[i].Message
	}
	return messages
}

// Wait returns the newest mail that matches, and waits for one where there is none yet. The error is the context's.
func (r *Recorder) Wait(ctx context.Context, match func(Message) bool) (Message, error) {
	for seen := 0; ; {
		all, arrived := r.snapshot()
		for _, m := range all {
			if m.ID > seen && match(m.Message) {
				return m.Message, nil
			}
		}
		if len(all) > 0 {
			seen = all[0].ID
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return Message{}, fmt.Errorf("wait for mail: %w", ctx.Err())
		}
	}
}

// snapshot returns what is kept, newest first, and what is closed at the next mail.
func (r *Recorder) snapshot() ([]recorded, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.arrived == nil {
		r.arrived = make(chan struct{})
	}
	all := append([]recorded{}, r.mails...) // JSON has [] where there is none
	slices.Reverse(all)
	return all, r.arrived
}
