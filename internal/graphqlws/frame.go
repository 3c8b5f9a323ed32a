package graphqlws

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit  = 0x80
	rsvBits = 0x70
	maskBit = 0x80

	maxControl = 125 // bytes of a control frame's payload, section 5.5
)

// reader reads what clients send: RFC 6455, section 5, without extensions. Its errors are *CloseError for what clients must not
// send, and else those of the connection.
type reader struct {
	br      *bufio.Reader
	limit   int  // bytes of a message
	begun   byte // opcode of the message whose fragments are being read, 0 between messages
	message []byte
	control [maxControl]byte
	head    [8]byte
}

func newReader(limit int) *reader { return &reader{br: bufio.NewReader(nil), limit: limit} }

// next reads one frame. It returns opText or opBinary and the message with the frame that ends one, the control frames as they come,
// and opContinuation with what a frame holds of a message that goes on. The bytes are valid until the next call.
func (r *reader) next() (opcode byte, payload []byte, err error) {
	if _, err := io.ReadFull(r.br, r.head[:2]); err != nil {
		return 0, nil, err
	}
	fin, opcode := r.head[0]&finBit != 0, r.head[0]&0xF
	if r.head[0]&rsvBits != 0 {
		return 0, nil, &CloseError{closeProtocol, "Reserved bits are set"}
	}
	if r.head[1]&maskBit == 0 {
		return 0, nil, &CloseError{closeProtocol, "Frame is not masked"}
	}
	length, err := r.length(r.head[1] &^ maskBit)
	if err != nil {
		return 0, nil, err
	}
	switch opcode {
	case opClose, opPing, opPong:
		if !fin || length > maxControl {
			return 0, nil, &CloseError{closeProtocol, "Control frame is fragmented or too long"}
		}
		payload, err = r.payload(r.control[:0], int(length))
		return opcode, payload, err
	case opText, opBinary:
		if r.begun != 0 {
			return 0, nil, &CloseError{closeProtocol, "Message begins within another"}
		}
		r.begun, r.message = opcode, r.message[:0]
	case opContinuation:
		if r.begun == 0 {
			return 0, nil, &CloseError{closeProtocol, "Continuation of no message"}
		}
	default:
		return 0, nil, &CloseError{closeProtocol, "Unknown opcode"}
	}
	already := len(r.message)
	if length > uint64(r.limit-already) {
		return 0, nil, &CloseError{closeTooBig, fmt.Sprintf("Message is longer than %d bytes", r.limit)}
	}
	if r.message, err = r.payload(r.message, int(length)); err != nil {
		return 0, nil, err
	}
	if !fin {
		return opContinuation, r.message[already:], nil
	}
	opcode, r.begun = r.begun, 0
	if opcode == opText && !utf8.Valid(r.message) {
		return 0, nil, &CloseError{closeInvalidData, "Text is not UTF-8"}
	}
	return opcode, r.message, nil
}

// length reads the rest of a payload's length, of which short was the first part.
func (r *reader) length(short byte) (uint64, error) {
	switch short {
	case 126:
		if _, err := io.ReadFull(r.br, r.head[:2]); err != nil {
			return 0, within(err)
		}
		if n := binary.BigEndian.Uint16(r.head[:]); n > maxControl {
			return uint64(n), nil
		}
	case 127:
		if _, err := io.ReadFull(r.br, r.head[:8]); err != nil {
			return 0, within(err)
		}
		if n := binary.BigEndian.Uint64(r.head[:]); n > 0xFFFF && n < 1<<63 {
			return n, nil
		}
	default:
		return uint64(short), nil
	}
	return 0, &CloseError{closeProtocol, "Length of a frame is not in its shortest form"}
}

// payload appends n masked bytes to b, which grows with what has come, not with what was announced.
func (r *reader) payload(b []byte, n int) ([]byte, error) {
	if _, err := io.ReadFull(r.br, r.head[:4]); err != nil {
		return b, within(err)
	}
	from := len(b)
	for end := from + n; len(b) < end; {
		part := min(end-len(b), max(512, len(b)))
		b = slices.Grow(b, part)[:len(b)+part]
		if _, err := io.ReadFull(r.br, b[len(b)-part:]); err != nil {
			return b, within(err)
		}
	}
	unmask(b[from:], r.head[:4])
	return b, nil
}

// within is the error of a read in the middle of a frame.
func within(err error) error {
	if err == io.EOF { //nolint:errorlint // io.ReadFull returns it as it is
		return io.ErrUnexpectedEOF
	}
	return err
}

// unmask is section 5.3, eight bytes at a time.
func unmask(b, key []byte) {
	word := uint64(binary.LittleEndian.Uint32(key))
	word |= word << 32
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}

// headSize is the length of the head of a server's frame.
func headSize(payload int) int {
	switch {
	case payload <= maxControl:
		return 2
	case payload <= 0xFFFF:
		return 4
	default:
		return 10
	}
}

// appendHead appends the head of a server's frame.
func appendHead(b []byte, opcode byte, payload int) []byte {
	b = append(b, finBit|opcode)
	switch headSize(payload) {
	case 2:
		return append(b, byte(payload))
	case 4:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(payload))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(payload))
	}
}

// closePayload is the payload of a close frame. The reason is cut to what a control frame holds.
func closePayload(code int, reason string) []byte {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if most := maxControl - 2; len(reason) > most {
		for !utf8.RuneStart(reason[most]) {
			most--
		}
		reason = reason[:most]
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// checkClose says whether a client may close with the payload: sections 5.5.1 and 7.4, and the codes registered since.
func checkClose(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	if len(payload) == 1 {
		return &CloseError{closeProtocol, "Close code is cut off"}
	}
	switch code := binary.BigEndian.Uint16(payload); {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return &CloseError{closeProtocol, "Invalid close code"}
	}
	if !utf8.Valid(payload[2:]) {
		return &CloseError{closeInvalidData, "Close reason is not UTF-8"}
	}
	return nil
}
