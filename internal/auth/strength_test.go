package auth

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/trustelem/zxcvbn/frequency"

	"godstack/internal/record"
)

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	own := []string{"Ada Lovelace", "countess_1815", "ada.byron+news@analytical.example", "Zoë O'Brien-李小龙", "Al"}
	const (
		short, long  = "password must have at least 8 characters", "password must have at most 64 characters"
		text, listed = "password must be text in one line", "password is one of the most common ones"
		mine, easy   = "password must have nothing of your name or address in it", "password is too easy to guess: add words or characters"
	)
	random := "kV7#qpzW" // the smallest that does
	for password, want := range map[string]string{
		random:                                                 "",
		"correct horse battery staple":                         "",
		"Tr0ub4dor&3":                                          "",
		"zugspitze bei nacht":                                  "",
		"съешь ещё этих":                                       "",
		"這是一個很長的密碼":                                            "",
		"🦊🐍🦉🐢🐙🦀🐝🐌":                                             "",
		strings.Repeat(random, 8):                              "",
		random + strings.Repeat("!", 56):                       "",
		strings.Repeat("mJ4", 11) + "vX!pQ9z#Lw2&Tn8^Rb5*Hc7(": "",

		"":                                    short,
		"kV7#qpz":                             short,
		"ﬁﬁﬁ":                                 short,
		"e\u0301e\u0301e\u0301e\u0301e\u0301": short, // 10 runes, 5 characters
		random + strings.Repeat("é", 57):      long,
		strings.Repeat("x", 1<<20):            long,
		strings.Repeat("\u0301", 600):         long,
		"kV7#qpzW\n":                          text,
		"kV7#\x00qpzW":                        text,
		"kV7#\u0085qpzW":                      text,
		"kV7#qp\xffzW":                        text,

		"password":   listed,
		"PassWord":   listed,
		"p@ssw0rd":   listed,
		"p4$$w0rd":   listed,
		"pássword":   listed,
		"ｐａｓｓｗｏｒｄ":   listed,
		"1qaz2wsx":   listed,
		"football":   listed,
		"iloveyou":   listed,
		"1234567890": listed,

		"adaKV7#qpzW":        mine,
		"kV7#qpzWLOVELACE":   mine,
		"kV7#qpzW10velace":   mine,
		"kV7#l0v3l4c3qpzW":   mine,
		"byronKV7#qpzW":      mine,
		"kV7#newsqpzW":       mine,
		"kV7#1815qpzW":       mine,
		"kV7#Countess!qpzW":  mine,
		"zoe-KV7#qpzW":       mine,
		"ZOË-KV7#qpzW":       mine,
		"kV7#李小龙qpzW":        mine,
		"kV7#qpzWbrien":      mine,
		"kV7#qpzWal":         "", // two letters are not much of a name
		"analyticalKV7#qpzW": "", // the provider is not the user

		"password2024":                  easy,
		"Summer2024!":                   easy,
		"Winter2026!":                   easy,
		"aaaaaaaaaaaaa":                 easy,
		"ъъъъъъъъъъ":                    easy,
		"абвгдежзийкл":                  easy,
		"abcdefghijklm":                 easy,
		"qwertzuiop123":                 easy,
		"hellohello123":                 easy,
		"2026-11-23":                    easy,
		"23.11.2026":                    easy,
		"elephantine9":                  easy,
		"abcabcabcabcabc":               easy,
		strings.Repeat("a", 64):         easy,
		strings.Repeat("password", 8):   easy,
		strings.Repeat("1234567890", 6): easy,
	} {
		err := CheckPassword(password, own...)
		if want == "" {
			require.NoError(t, err, password)
			continue
		}
		require.EqualError(t, err, want, password)
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, record.BadUserInput, e.Code)
		require.Equal(t, []string{"password"}, e.Fields)
	}
}

func TestCheckPasswordCountsAfterNormalisation(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckPassword("kV7#qpzW"+strings.Repeat("e\u0301r", 28)), "64 characters of 92 runes")
}

// More than 3,000 common passwords are long enough, and the list has them.
func TestCommonPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	n := 0
	for _, p := range frequency.FrequencyLists["passwords"] {
		if len(p) < minPassword || utf8.RuneCountInString(p) > maxPassword {
			continue
		}
		n++
		require.EqualError(t, CheckPassword(strings.ToUpper(p)), "password is one of the most common ones", p)
	}
	require.Greater(t, n, 3_000, "of a length that is allowed otherwise")
	require.Greater(t, len(common()), 29_000)
}

func FuzzCheckPassword(f *testing.F) {
	for _, p := range []string{"", "correct horse battery staple", "4@8({[<36911!|1|70$5+7%2x4@8({[<369", "абвгдежзийкл", "aabaabaab", "2024-11-23", "\xff\xfe"} {
		f.Add(p, "Ada Lovelace")
	}
	f.Fuzz(func(t *testing.T, password, own string) {
		err := CheckPassword(password, own)
		var e *record.Error
		if err != nil {
			require.ErrorAs(t, err, &e)
		} else {
			require.GreaterOrEqual(t, len(password), minPassword)
		}
	})
}

// BenchmarkCheckPassword is the most work that 64 characters make: each digit and sign may stand for a letter.
func BenchmarkCheckPassword(b *testing.B) {
	worst := strings.Repeat("a4@8({[<36911!|1|70$5+7%2xkqv3m9", 2)
	for b.Loop() {
		_ = CheckPassword(worst, "Ada Lovelace")
	}
}
