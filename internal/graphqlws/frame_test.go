package graphqlws

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const (
	ping = `{"type":"ping"}`
	pong = `{"type":"pong"}`
)

// code is the payload of a client's close frame.
func code(n int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(n))) + reason
}

// TestRefusedFrames: what RFC 6455 forbids closes the socket, with its code.
func TestRefusedFrames(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, &Config{MessageSize: 70_000})
	long := strings.Repeat("x", 126)
	const notShortest = "Length of a frame is not in its shortest form"
	for name, c := range map[string]struct {
		bytes  []byte
		code   int
		reason string
	}{
		"not masked":                 {append([]byte{finBit | opText, byte(len(ping))}, ping...), 1002, "Frame is not masked"},
		"control not masked":         {[]byte{finBit | opPing, 0}, 1002, "Frame is not masked"},
		"RSV1, compression":          {frame(finBit|0x40|opText, ping), 1002, "Reserved bits are set"},
		"RSV2":                       {frame(finBit|0x20|opText, ping), 1002, "Reserved bits are set"},
		"RSV3":                       {frame(finBit|0x10|opPing, ""), 1002, "Reserved bits are set"},
		"opcode 3":                   {frame(finBit|0x3, ping), 1002, "Unknown opcode"},
		"opcode 7":                   {frame(finBit|0x7, ping), 1002, "Unknown opcode"},
		"opcode 11":                  {frame(finBit|0xB, ""), 1002, "Unknown opcode"},
		"opcode 15":                  {frame(finBit|0xF, ""), 1002, "Unknown opcode"},
		"long ping":                  {frame(finBit|opPing, long), 1002, "Control frame is fragmented or too long"},
		"long pong":                  {frame(finBit|opPong, long), 1002, "Control frame is fragmented or too long"},
		"long close":                 {frame(finBit|opClose, code(1000, long)), 1002, "Control frame is fragmented or too long"},
		"fragmented ping":            {frame(opPing, ""), 1002, "Control frame is fragmented or too long"},
		"continuation of nothing":    {frame(finBit|opContinuation, ping), 1002, "Continuation of no message"},
		"text in a text":             {append(frame(opText, ping[:3]), frame(finBit|opText, ping)...), 1002, "Message begins within another"},
		"binary in a text":           {append(frame(opText, ping[:3]), frame(opBinary, ping)...), 1002, "Message begins within another"},
		"16 bits for a small length": {[]byte{finBit | opText, maskBit | 126, 0, 125}, 1002, notShortest},
		"64 bits for a small length": {[]byte{finBit | opText, maskBit | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, 1002, notShortest},
		"length of 2^63":             {[]byte{finBit | opText, maskBit | 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, 1002, notShortest},
		"length of 2^63-1": {
			[]byte{finBit | opText, maskBit | 127, 0x7F, 255, 255, 255, 255, 255, 255, 255}, 1009, "Message is longer than 70000 bytes",
		},
		"too long": {frame(finBit|opText, strings.Repeat(" ", 70_001)), 1009, "Message is longer than 70000 bytes"},
		"too long in all": {
			append(frame(opText, strings.Repeat(" ", 69_999)), frame(opContinuation, "  ")...), 1009, "Message is longer than 70000 bytes",
		},
		"no UTF-8":             {frame(finBit|opText, "\"\xff\""), 1007, "Text is not UTF-8"},
		"a surrogate":          {frame(finBit|opText, "\"\xed\xa0\x80\""), 1007, "Text is not UTF-8"},
		"overlong":             {frame(finBit|opText, "\"\xc0\xaf\""), 1007, "Text is not UTF-8"},
		"cut off":              {frame(finBit|opText, "\xe2\x82"), 1007, "Text is not UTF-8"},
		"no UTF-8 over frames": {append(frame(opText, "\"\xe2\x82"), frame(finBit|opContinuation, "\"")...), 1007, "Text is not UTF-8"},
		"half a close code":    {frame(finBit|opClose, "\x03"), 1002, "Close code is cut off"},
		"close 0":              {frame(finBit|opClose, code(0, "")), 1002, "Invalid close code"},
		"close 999":            {frame(finBit|opClose, code(999, "")), 1002, "Invalid close code"},
		"close 1004":           {frame(finBit|opClose, code(1004, "")), 1002, "Invalid close code"},
		"close 1005":           {frame(finBit|opClose, code(1005, "")), 1002, "Invalid close code"},
		"close 1006":           {frame(finBit|opClose, code(1006, "")), 1002, "Invalid close code"},
		"close 1015":           {frame(finBit|opClose, code(1015, "")), 1002, "Invalid close code"},
		"close 2999":           {frame(finBit|opClose, code(2999, "")), 1002, "Invalid close code"},
		"close 5000":           {frame(finBit|opClose, code(5000, "")), 1002, "Invalid close code"},
		"close without UTF-8":  {frame(finBit|opClose, code(1000, "\xff")), 1007, "Close reason is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := b.signedIn(t)
			s.write(c.bytes)
			s.expectClose(c.code, c.reason)
		})
	}
}

// TestFrames: what RFC 6455 allows is understood, however it is cut.
func TestFrames(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, &Config{MessageSize: 70_000, MessageRate: 1_000_000})
	euro := `{"type":"ping","payload":{"a":"€"}}`
	split := strings.Index(euro, "€") + 1
	for name, c := range map[string]struct {
		bytes  []byte
		answer string
	}{
		"in two":             {append(frame(opText, ping[:5]), frame(finBit|opContinuation, ping[5:])...), pong},
		"empty at both ends": {slices.Concat(frame(opText, ""), frame(opContinuation, ping), frame(finBit|opContinuation, "")), pong},
		"through a character": {
			append(frame(opText, euro[:split]), frame(finBit|opContinuation, euro[split:])...), `{"type":"pong","payload":{"a":"€"}}`,
		},
		"pong frames between": {
			slices.Concat(
				frame(opText, ping[:5]), frame(finBit|opPong, "a"), frame(opContinuation, ping[5:8]), frame(finBit|opPong, ""),
				frame(finBit|opContinuation, ping[8:]),
			),
			pong,
		},
		"16 bits of length": {frame(finBit|opText, ping+strings.Repeat(" ", 200)), pong},
		"64 bits of length": {frame(finBit|opText, ping+strings.Repeat(" ", 70_000-len(ping))), pong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := b.signedIn(t)
			s.write(c.bytes)
			s.expect(c.answer)
			for i := range c.bytes { // a segment a byte, or as the kernel likes it
				if i > 300 {
					s.write(c.bytes[i:])
					break
				}
				s.write(c.bytes[i : i+1])
			}
			s.write(slices.Concat(c.bytes, c.bytes)) // several in a segment
			s.expect(c.answer, c.answer, c.answer)
		})
	}
	t.Run("ping frames", func(t *testing.T) {
		t.Parallel()
		s := b.open(t)
		long := strings.Repeat("p", maxControl)
		s.write(frame(finBit|opPing, ""), frame(opText, ping[:5]), frame(finBit|opPing, long), frame(finBit|opContinuation, ping[5:]))
		for _, want := range []string{"", long} {
			opcode, payload, err := s.next()
			require.NoError(t, err)
			require.Equal(t, byte(opPong), opcode)
			require.Equal(t, want, payload)
		}
		s.expect(pong)
	})
	for name, payload := range map[string]string{
		"close": "", "close 1000": code(1000, ""), "close 1001": code(1001, "away"), "close 1007": code(1007, ""), "close 1014": code(1014, ""),
		"close 3000": code(3000, "ä"), "close 4999": code(4999, strings.Repeat("x", maxControl-2)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := b.signedIn(t)
			s.write(frame(finBit|opClose, payload), frame(finBit|opText, ping))
			opcode, echo, err := s.next()
			require.NoError(t, err)
			require.Equal(t, byte(opClose), opcode)
			require.Equal(t, payload, echo)
			s.expectEnd()
		})
	}
}

// TestHeads: the server's frames have the shortest head.
func TestHeads(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]byte{
		0: {0x81, 0}, 125: {0x81, 125}, 126: {0x81, 126, 0, 126}, 0xFFFF: {0x81, 126, 255, 255}, 0x10000: {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		require.Equal(t, want, appendHead(nil, opText, n))
		require.Equal(t, len(want), headSize(n))
	}
}

// TestAllocation: a length that was announced takes no memory.
func TestAllocation(t *testing.T) {
	t.Parallel()
	r := newReader(1 << 30)
	r.br.Reset(bytes.NewReader(append(frame(opText, "")[:1], maskBit|127, 0, 0, 0, 0, 0x3F, 0, 0, 0, 1, 2, 3, 4, 'a')))
	_, _, err := r.next()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.LessOrEqual(t, cap(r.message), 1024)
}

// FuzzReader reads any bytes, and any text in fragments: nothing panics, nothing is longer than the limit, and exactly what utf8.Valid
// accepts is a text.
func FuzzReader(f *testing.F) {
	f.Add(frame(finBit|opText, ping), ping, uint16(3), uint16(7))
	f.Add(append(frame(opText, "a"), frame(finBit|opPing, "b")...), "€\xff", uint16(1), uint16(2))
	f.Add([]byte{finBit | opText, maskBit | 127, 0x7F, 255, 255, 255, 255, 255, 255, 255}, subscribe(`\ud800`), uint16(20), uint16(20))
	f.Add(frame(finBit|opClose, code(1000, "bye")), `{"id":"1","type":"complete"}`, uint16(0), uint16(500))
	const limit = 4096
	f.Fuzz(func(t *testing.T, raw []byte, text string, i, j uint16) {
		r := newReader(limit)
		r.br.Reset(bytes.NewReader(raw))
		for {
			opcode, payload, err := r.next()
			if err != nil {
				break
			}
			require.LessOrEqual(t, len(payload), limit)
			switch opcode {
			case opText:
				require.True(t, utf8.Valid(payload))
				understand(t, payload)
			case opClose:
				_ = checkClose(payload)
			}
		}
		require.LessOrEqual(t, cap(r.message), 4*limit)

		text = text[:min(len(text), limit)]
		a := min(int(i), len(text))
		b := min(max(int(j), a), len(text))
		r = newReader(limit)
		frames := slices.Concat(frame(opText, text[:a]), frame(opContinuation, text[a:b]), frame(finBit|opContinuation, text[b:]))
		r.br.Reset(bytes.NewReader(frames))
		for range 2 {
			opcode, _, err := r.next()
			require.NoError(t, err)
			require.Equal(t, byte(opContinuation), opcode)
		}
		_, payload, err := r.next()
		if !utf8.ValidString(text) {
			var refusal *CloseError
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, 1007, refusal.Code)
			return
		}
		require.NoError(t, err)
		require.Equal(t, text, string(payload))
		understand(t, payload)
	})
}

// understand parses a message, and what is in it.
func understand(t *testing.T, text []byte) {
	m, err := parse(text)
	if err != nil {
		require.True(t, utf8.Valid(closePayload(closeBadRequest, err.Error())[2:]))
		return
	}
	var op Operation
	if m.kind == typeSubscribe && m.operation(&op) == nil {
		again, err := parse(compose(typeComplete, op.key, nil))
		require.NoError(t, err)
		require.Equal(t, op.ID, again.id)
	}
}
