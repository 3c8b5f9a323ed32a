package mail

import (
	"net/textproto"
	"regexp"
	"slices"
	"strings"
)

// enhanced is the code of RFC 3463 that begins a reply's text, where the server gives one.
var enhanced = regexp.MustCompile(`^([245])\.(\d{1,3})\.(\d{1,3})(?:\s|$)`)

// statusOf returns a reply's enhanced code, such as 5.1.1; empty for none.
func statusOf(reply *textproto.Error) string {
	return strings.TrimSpace(enhanced.FindString(reply.Msg))
}

// aboutUs are words of replies without an enhanced code that are about who sends, rather than about the recipient: to those, too, servers
// answer 550.
var aboutUs = regexp.MustCompile(`(?i)relay|rcpthosts|authent|sender|polic|spam|block|reputation|denied|prohibit|not permitted|verif|\b(?:helo|dns|tls)\b`)

// isPermanent reports whether a reply says that the same mail would be refused again. By its enhanced code it is: 5.1.x, but for 5.1.7 and
// 5.1.8, which are about our own address; 5.2.x, about the mailbox; 5.6.x, about the content; 5.3.4, where that is too large. Without one, it
// is what RFC 5321 has for a recipient, and RFC 7504. All else is about us, or about the server, and somebody mends that.
func isPermanent(step string, reply *textproto.Error) bool {
	if reply.Code/100 != 5 || !slices.Contains([]string{stepRecipient, stepData, stepContent}, step) {
		return false
	}
	code := enhanced.FindStringSubmatch(reply.Msg)
	if code == nil {
		return step == stepRecipient && slices.Contains([]int{550, 551, 552, 553, 556}, reply.Code) && !aboutUs.MatchString(reply.Msg)
	}
	if code[1] != "5" {
		return false
	}
	switch subject, detail := code[2], code[3]; subject {
	case "1":
		return detail != "7" && detail != "8"
	case "2", "6":
		return true
	case "3":
		return detail == "4" && step == stepContent
	}
	return false
}

const (
	// longestReply is what is kept of a reply, in characters.
	longestReply = 500
	// longestWord is what a word may have; tokens have more.
	longestWord = 40
	// leftOut stands for a word that may be of the mail.
	leftOut = "[…]"
)

// redact returns a reply's text on one line, for logs and for the table of jobs, without what a server may have quoted of the mail: addresses,
// links, tokens, and the parts of the recipient's address. What it says beside is what operators need.
func redact(text, to string) string {
	local, host, _ := strings.Cut(strings.ToLower(to), "@")
	var words []string
	for word := range strings.FieldsSeq(text) {
		bare := strings.ToLower(strings.Trim(word, `.,:;!?()[]{}'"`))
		secret := strings.ContainsAny(bare, "@/=?&%_<>#\\`") || len(word) > longestWord || bare != "" && (bare == local || bare == host)
		if !secret {
			words = append(words, word)
		} else if len(words) == 0 || words[len(words)-1] != leftOut {
			words = append(words, leftOut)
		}
	}
	return line(strings.Join(words, " "), longestReply)
}
