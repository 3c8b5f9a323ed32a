package auth

import (
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"github.com/trustelem/zxcvbn/frequency"
	"golang.org/x/text/unicode/norm"

	"godstack/internal/record"
)

const (
	minPassword = 8  // characters
	maxPassword = 64 // characters

	// minGuesses is how many tries a password must take of somebody who knows how people choose them: what eight
	// random characters take, and zxcvbn's score 3.
	minGuesses = 1e8
	// estimated is how many characters are estimated at once. The work grows with their square and with the ways
	// to read digits and signs as letters: 75 ms at 64 characters, 12 ms at 32.
	estimated = 32
	// minOwn is how long a part of a user's name or address is that a password must not have.
	minOwn = 3
)

// CheckPassword returns a BAD_USER_INPUT error about `password` unless it has 8 to 64 characters, is none of 30,000
// common ones, has nothing in it of what is the user's own (name, user name, address; each word of three or more
// letters), and takes 10^8 guesses by zxcvbn's estimate. Upper case, accents, and digits in place of letters hide
// neither a common password nor a name. Characters are counted after normalisation (NFKC).
func CheckPassword(password string, own ...string) error {
	if len(password) > maxPasswordBytes {
		return weakPassword("must have at most 64 characters")
	}
	password = norm.NFKC.String(password)
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return weakPassword("must be text in one line")
	case n < minPassword:
		return weakPassword("must have at least 8 characters")
	case n > maxPassword:
		return weakPassword("must have at most 64 characters")
	}
	plain := fold(password)
	if common()[plain] {
		return weakPassword("is one of the most common ones")
	}
	words := ownWords(own)
	for _, word := range words {
		if strings.Contains(plain, word) {
			return weakPassword("must have nothing of your name or address in it")
		}
	}
	if guesses(password) < minGuesses {
		return weakPassword("is too easy to guess: add words or characters")
	}
	return nil
}

func weakPassword(why string) error {
	return &record.Error{Code: record.BadUserInput, Message: "password " + why, Fields: []string{"password"}}
}

// common is the passwords that are tried first, folded.
var common = sync.OnceValue(func() map[string]bool {
	list := frequency.FrequencyLists["passwords"]
	set := make(map[string]bool, len(list))
	for _, p := range list {
		set[fold(p)] = true
	}
	return set
})

// ownWords are the parts of what is the user's own that are long enough, folded.
func ownWords(own []string) (words []string) {
	for _, text := range own {
		if at := strings.LastIndexByte(text, '@'); at >= 0 {
			text = text[:at]
		}
		separator := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) }
		for _, word := range strings.FieldsFunc(text, separator) {
			if utf8.RuneCountInString(word) >= minOwn {
				words = append(words, fold(word))
			}
		}
	}
	return words
}

// guesses is a lower bound of the tries that the password takes.
func guesses(password string) float64 {
	// The estimator knows the years up to 2019, and bytes rather than characters.
	text := recentYear.ReplaceAllString(ascii(password), "201$1")
	if len(text) <= estimated {
		return zxcvbn.PasswordStrength(text, nil).Guesses
	}
	// Either end is a part of the whole, which takes no fewer.
	return max(
		zxcvbn.PasswordStrength(text[:estimated], nil).Guesses,
		zxcvbn.PasswordStrength(text[len(text)-estimated:], nil).Guesses,
	)
}

var recentYear = regexp.MustCompile(`20[2-4](\d)`)

// fold returns text in lower case without accents, with letters for the digits and signs that are used in their place.
func fold(text string) string {
	return letters.Replace(strings.ToLower(strings.Map(dropMark, norm.NFKD.String(text))))
}

func dropMark(r rune) rune {
	if unicode.IsMark(r) {
		return -1
	}
	return r
}

// letters has one character for all that look alike: l is i, since 1 may be both.
var letters = strings.NewReplacer(
	"0", "o", "1", "i", "!", "i", "|", "i", "l", "i", "3", "e", "4", "a", "@", "a", "5", "s", "$", "s", "7", "t", "+", "t",
)

// ascii returns text without accents, and a letter for each character of other scripts. Their repetitions stay
// repetitions, their sequences mostly sequences, and each counts as one of 26: an estimate is too low rather than
// too high.
func ascii(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf && !unicode.IsMark(r) {
			return 'a' + unicode.ToLower(r)%26
		}
		return dropMark(r)
	}, norm.NFKD.String(text))
}
