package mail

import (
	"fmt"
	"html"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const aLink = "https://godstack.test/x?token=got_abc"

func data() Data {
	return Data{
		App: "Godstack", Name: "Ada", Link: aLink, Email: "new@example.com", Address: "192.0.2.7", Change: "turned on",
		UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		When:      time.Date(2026, 11, 23, 14, 5, 0, 0, time.FixedZone("", 3600)),
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	const who = "\n  When:    23 November 2026, 13:05 UTC\n  Address: 192.0.2.7\n" +
		"  Program: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\n\n"
	for kind, want := range map[string]struct {
		subject string
		has     []string
		lacks   []string
	}{
		VerifyEmail:      {"Confirm your address for Godstack", []string{"Hello,\n", "\n\n" + aLink + "\n\n"}, []string{"Ada"}},
		AccountExists:    {"You already have an account at Godstack", []string{"Hello,\n", "set a new one here:\n\n" + aLink + "\n\n"}, []string{"Ada"}},
		ResetPassword:    {"Set a new password for Godstack", []string{"Hello Ada,\n", "\n\n" + aLink + "\n\n"}, nil},
		PasswordChanged:  {"Your password for Godstack was changed", []string{"Hello Ada,\n", who, "\n\n" + aLink + "\n"}, nil},
		ChangeEmail:      {"Confirm your new address for Godstack", []string{"Hello,\n", "\n\n" + aLink + "\n\n"}, []string{"Ada"}},
		EmailChanged:     {"Your address for Godstack was changed", []string{"Hello Ada,\n", "is now new@example.com.", who, "\n\n" + aLink + "\n"}, nil},
		TokenReuse:       {"You were signed out of Godstack for safety", []string{"Hello Ada,\n", who}, []string{aLink}},
		AccountLocked:    {"Too many tries to sign in to Godstack", []string{"Hello Ada,\n", who, "\n\n" + aLink + "\n\n"}, nil},
		NewDeviceLogin:   {"New sign-in to Godstack", []string{"Hello Ada,\n", who, "\n\n" + aLink + "\n"}, nil},
		Welcome:          {"Welcome to Godstack", []string{"Hello Ada,\n", "is ready. This is where to begin:\n\n" + aLink + "\n\n"}, nil},
		FollowUp:         {"How is it going with Godstack?", []string{"Hello Ada,\n", "two days ago", "\n\n" + aLink + "\n\n"}, nil},
		TwoFactorChanged: {"Your second factor for Godstack was turned on", []string{"Hello Ada,\n", "was turned on.", who}, []string{aLink}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m, err := Compose(kind, "ada@example.com", data())
			require.NoError(t, err)
			require.Equal(t, kind, m.Kind)
			require.Equal(t, "ada@example.com", m.To)
			require.Equal(t, want.subject, m.Subject)
			for _, s := range want.has {
				require.Contains(t, m.Text, s)
			}
			for _, s := range want.lacks {
				require.NotContains(t, m.Text, s)
			}
			require.LessOrEqual(t, len(m.Links()), 1)
			tidy(t, m.Text)
			sameInHTML(t, m)

			// With as little as it can do with.
			bare := Data{App: "Godstack"}
			if needsLink[kind] {
				_, err := Compose(kind, "ada@example.com", bare)
				require.EqualError(t, err, "compose mail "+kind+": no Link")
				bare.Link = aLink
			}
			m, err = Compose(kind, "ada@example.com", bare)
			require.NoError(t, err)
			require.Contains(t, m.Text, "Hello,\n")
			for _, s := range []string{"When:", "Address:", "Program:", "0001"} {
				require.NotContains(t, m.Text, s)
			}
			tidy(t, m.Text)
			sameInHTML(t, m)
			again, err := Compose(kind, "ada@example.com", bare)
			require.NoError(t, err)
			require.NotEqual(t, m.ID, again.ID, "it is another mail")
		})
	}
}

// tidy is what a text looks like that templates have not torn.
func tidy(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, "\n\n\n")
	require.NotContains(t, text, "<no value>")
	require.NotRegexp(t, `(?m)[ \t]+$`, text)
	require.Regexp(t, `[^\n]\n\z`, text)
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "http") {
			require.LessOrEqual(t, len([]rune(line)), 90, line)
		}
	}
}

// tags are all that a mail's HTML may have.
var tags = regexp.MustCompile(`^(?:<!DOCTYPE html>|<html lang="en">|<meta charset="utf-8">|<meta name="viewport" content="width=device-width">|` +
	`<base target="_blank">|<p class="address">|<br>|<a class="button" href="https://godstack.test/x\?token=got_abc">|` +
	`</?(?:head|title|style|body|main|h1|p|table|tr|th|td)>|</a>|</html>)`)

// requireMarkup holds that HTML has no other markup than that of the templates.
func requireMarkup(t *testing.T, text string) {
	t.Helper()
	for i, r := range text {
		if r == '<' {
			require.Regexp(t, tags, text[i:])
		}
	}
	require.Contains(t, text, "<style>"+mailStyle+"</style>", "the mailbox's policy has the hash of exactly that")
	require.Equal(t, 1, strings.Count(text, "<style>"))
	require.True(t, strings.HasPrefix(text, "<!DOCTYPE html>"))
	require.Regexp(t, `</html>\n+\z`, text)
}

// sameInHTML holds that a mail's HTML says what its text says: the words of the text are those of the HTML, in their order, but for what
// labels and copies the link.
func sameInHTML(t *testing.T, m Message) {
	t.Helper()
	requireMarkup(t, m.HTML)
	_, body, ok := strings.Cut(m.HTML, "</h1>")
	require.True(t, ok)
	require.Contains(t, m.HTML, "<h1>"+html.EscapeString(m.Subject)+"</h1>")
	require.Equal(t, len(m.Links()), strings.Count(body, "<a "))
	body = regexp.MustCompile(`<a [^>]*>[^<]*</a>|Or copy this address into a browser:`).ReplaceAllString(body, "")
	body = html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " "))
	text := regexp.MustCompile(`(When|Address|Program):`).ReplaceAllString(m.Text, "$1")
	require.Equal(t, strings.Fields(text), strings.Fields(body))
}

func TestComposeHasATemplateForEachKind(t *testing.T) {
	t.Parallel()
	all := []string{
		VerifyEmail, AccountExists, ResetPassword, PasswordChanged, ChangeEmail, EmailChanged, TokenReuse, AccountLocked,
		NewDeviceLogin, TwoFactorChanged, Welcome, FollowUp,
	}
	require.ElementsMatch(t, all, kinds)
	for _, form := range []string{".txt", ".html"} {
		names, err := fs.Glob(files, "templates/*"+form)
		require.NoError(t, err)
		var want []string
		for _, kind := range all {
			want = append(want, "templates/"+kind+form)
		}
		require.ElementsMatch(t, want, names)
	}
}

func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"", "nothing", "partials", "partials.tmpl", "hello", "layout", "head", "../secret"} {
		_, err := Compose(kind, "ada@example.com", data())
		require.ErrorContains(t, err, "compose mail: no kind")
	}
	for _, link := range []string{
		"javascript:alert(1)", "/x?token=got_abc", "//godstack.test/x", "https:///x", "https://u:p@godstack.test/",
		"ftp://godstack.test/", "https://godstack.test/a b", "https://godstack.test/\r\nBcc: x", "https://godstack.test/\"x", "https://%zz/",
	} {
		d := data()
		d.Link = link
		_, err := Compose(VerifyEmail, "ada@example.com", d)
		require.ErrorContains(t, err, "the Link is not an absolute http or https URL", link)
		require.NotContains(t, err.Error(), "got_")
	}
	_, err := Compose(VerifyEmail, "ada@example.com\r\nBcc: eve@example.com", data())
	require.ErrorContains(t, err, "To is not one address")
	d := data()
	d.App = "Godstack\r\nBcc: eve@example.com"
	_, err = Compose(VerifyEmail, "ada@example.com", d)
	require.ErrorContains(t, err, "Subject is not one line")
	d.App = ""
	_, err = Compose(VerifyEmail, "ada@example.com", d)
	require.ErrorContains(t, err, "no App")
}

// What users choose brings neither links nor lines into a mail that they can have sent to others.
func TestComposeQuotes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Ada Lovelace":                "Hello Ada Lovelace,",
		"J. R. R. Tolkien":            "Hello J. R. R. Tolkien,",
		"O'Brien & <Co>":              "Hello O'Brien & <Co>,",
		"李小龙":                         "Hello 李小龙,",
		" Ada\r\n\r\n\tYou have won ": "Hello Ada You have won,",
		"Ada\u202egnp":                "Hello Ada gnp,",
		"{{ .Link }}":                 "Hello {{ .Link }},",
		strings.Repeat("x", 100):      "Hello " + strings.Repeat("x", 59) + "…,",
		"claim at http://evil.test/x": "Hello,",
		"claim at HTTPS://evil":       "Hello,",
		"claim at www.evil.test":      "Hello,",
		"claim at evil.test/now":      "Hello,",
		"write to eve@evil":           "Hello,",
	} {
		d := data()
		d.Name, d.UserAgent, d.Address = name, "bot (+http://evil.test/bot)\r\nX: y", "192.0.2.7\r\n\r\nX: y"
		m, err := Compose(TokenReuse, "ada@example.com", d)
		require.NoError(t, err)
		greeting, _, _ := strings.Cut(m.Text, "\n")
		require.Equal(t, want, greeting)
		require.NotContains(t, m.Text, "evil")
		require.NotContains(t, m.Text, "\nX: y")
		require.Empty(t, m.Links())
		requireMarkup(t, m.HTML)
		require.Contains(t, html.UnescapeString(m.HTML), "<p>"+want+"</p>")
		require.NotContains(t, m.HTML, "evil")
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("Ada", "Mozilla/5.0", "192.0.2.7")
	f.Add("a\r\nb", "http://x", "{{.}}")
	f.Add("</p><script>alert(1)</script>", "--><img src=x>", `"'><a href=x>&lt;`)
	f.Fuzz(func(t *testing.T, name, agent, address string) {
		d := data()
		d.Name, d.UserAgent, d.Address = name, agent, address
		m, err := Compose(TokenReuse, "ada@example.com", d)
		if err != nil {
			return
		}
		plain, err := Compose(TokenReuse, "ada@example.com", Data{App: "Godstack", When: d.When})
		require.NoError(t, err)
		more := strings.Count(m.Text, "\n") - strings.Count(plain.Text, "\n")
		require.LessOrEqual(t, more, 2, "two lines for two values")
		requireMarkup(t, m.HTML)
	})
}

func ExampleCompose() {
	m, err := Compose(ResetPassword, "ada@example.com", Data{App: "Godstack", Name: "Ada", Link: "https://example.com/reset?token=got_x"})
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Subject)
	fmt.Println(m.Links()[0])
	// Output:
	// Set a new password for Godstack
	// https://example.com/reset?token=got_x
}
