package mail

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	good := Message{To: "ada@example.com", Subject: "Grüße", Text: "one\ntwo", Kind: "test"}
	require.NoError(t, good.Validate())
	for name, change := range map[string]func(*Message){
		"no address":                 func(m *Message) { m.To = "" },
		"a name and an address":      func(m *Message) { m.To = "Ada <ada@example.com>" },
		"two addresses":              func(m *Message) { m.To = "ada@example.com, eve@example.com" },
		"a header in To":             func(m *Message) { m.To = "ada@example.com\r\nBcc: eve@example.com" },
		"a line feed in To":          func(m *Message) { m.To = "ada@example.com\n" },
		"a quoted line break in To":  func(m *Message) { m.To = "\"a\r\n b\"@example.com" },
		"a NUL in To":                func(m *Message) { m.To = "ada\x00@example.com" },
		"a long address":             func(m *Message) { m.To = strings.Repeat("a", 250) + "@example.com" },
		"no subject":                 func(m *Message) { m.Subject = "" },
		"a header in Subject":        func(m *Message) { m.Subject = "hi\r\nBcc: eve@example.com" },
		"a carriage return":          func(m *Message) { m.Subject = "hi\rBcc: eve@example.com" },
		"a line feed":                func(m *Message) { m.Subject = "hi\nBcc: eve@example.com" },
		"a next line":                func(m *Message) { m.Subject = "hi\u0085there" },
		"a line separator":           func(m *Message) { m.Subject = "hi\u2028there" },
		"a subject that is not text": func(m *Message) { m.Subject = "hi\xff" },
		"a long subject":             func(m *Message) { m.Subject = strings.Repeat("x", 201) },
		"no kind":                    func(m *Message) { m.Kind = "" },
		"a header in Kind":           func(m *Message) { m.Kind = "a\r\nb" },
		"no text":                    func(m *Message) { m.Text = "" },
		"a text that is not text":    func(m *Message) { m.Text = "\xff" },
		"HTML that is not text":      func(m *Message) { m.HTML = "\xff" },
		"long HTML":                  func(m *Message) { m.HTML = strings.Repeat("x", maxText+1) },
		"a header in ID":             func(m *Message) { m.ID = "a\r\nb" },
		"an ID that ends":            func(m *Message) { m.ID = "a>" },
		"a long ID":                  func(m *Message) { m.ID = strings.Repeat("x", 65) },
		"a long text":                func(m *Message) { m.Text = strings.Repeat("x", maxText+1) },
	} {
		m := good
		change(&m)
		require.Error(t, m.Validate(), name)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	m := Message{Text: "see\n\nhttps://a.test/x?token=got_1-_&y=2\n\nor <http://b.test> or ftp://c.test, javascript:alert(1)"}
	require.Equal(t, []string{"https://a.test/x?token=got_1-_&y=2", "http://b.test"}, m.Links())
	m.Text = "none"
	require.Empty(t, m.Links())
}

func FuzzValidate(f *testing.F) {
	f.Add("ada@example.com", "hello")
	f.Add("\"a\r\n b\"@example.com", "a\r\nb")
	f.Fuzz(func(t *testing.T, to, subject string) {
		m := Message{To: to, Subject: subject, Text: "x", Kind: "x"}
		if m.Validate() == nil {
			require.NotContains(t, to+subject, "\r")
			require.NotContains(t, to+subject, "\n")
		}
	})
}
