package connect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// The lengths of the headers of binary frames.
const (
	RequestHeaderBytes  = 31
	ResponseHeaderBytes = 16
)

// The flags of binary frames. Those that are not named are 0.
const (
	// FlagBinary says that the payload is no JSON, but application/octet-stream.
	FlagBinary = 1 << 0
	// FlagAck makes a request an acknowledgement: Sequence is that of the last event received; channel, endpoint and message id are 0, and
	// there is no payload. It is not answered.
	FlagAck = 1 << 1
)

// A Request is a binary frame of a client. Its header is big-endian: flags 1 byte, channel 2, sequence 4, endpoint 16, message id 8.
type Request struct {
	Flags     byte
	Channel   uint16    // calls of one channel are made one after another, but those of channel 0
	Sequence  uint32    // the client's own, comes back
	Endpoint  uuid.UUID // from the manifest
	MessageID uint64    // the client's own, comes back
	Payload   []byte    // shares the frame's memory
}

// A Response is a binary frame of the gateway. Its header is big-endian: flags 1 byte, channel 2, sequence 4, message id 8, code 1.
type Response struct {
	Flags     byte
	Channel   uint16
	Sequence  uint32
	MessageID uint64
	Code      Code
	Payload   []byte
}

// errFrame reports a message that is no frame.
var errFrame = errors.New("no frame")

// ParseRequest reads a frame of a client. What is too short, or has flags that there are not, is an error.
func ParseRequest(frame []byte) (Request, error) {
	if len(frame) < RequestHeaderBytes {
		return Request{}, fmt.Errorf("%w: a binary request begins with a header of %d bytes, and this has %d", errFrame, RequestHeaderBytes, len(frame))
	}
	r := Request{
		Flags: frame[0], Channel: binary.BigEndian.Uint16(frame[1:]), Sequence: binary.BigEndian.Uint32(frame[3:]),
		Endpoint: uuid.UUID(frame[7:23]), MessageID: binary.BigEndian.Uint64(frame[23:]), Payload: frame[RequestHeaderBytes:],
	}
	if unknown := r.Flags &^ (FlagBinary | FlagAck); unknown != 0 {
		return Request{}, fmt.Errorf("%w: flags %#02x are not in use: leave them 0", errFrame, unknown)
	}
	if r.Flags&FlagAck != 0 && (r.Flags != FlagAck || r.Channel != 0 || r.Endpoint != uuid.Nil || r.MessageID != 0 || len(r.Payload) > 0) {
		return Request{}, fmt.Errorf("%w: an acknowledgement has a sequence, and nothing else", errFrame)
	}
	return r, nil
}

// Append appends the frame.
func (r Request) Append(to []byte) []byte {
	to = append(to, r.Flags)
	to = binary.BigEndian.AppendUint16(to, r.Channel)
	to = binary.BigEndian.AppendUint32(to, r.Sequence)
	to = append(to, r.Endpoint[:]...)
	to = binary.BigEndian.AppendUint64(to, r.MessageID)
	return append(to, r.Payload...)
}

// ParseResponse reads a frame of the gateway.
func ParseResponse(frame []byte) (Response, error) {
	if len(frame) < ResponseHeaderBytes {
		return Response{}, fmt.Errorf("%w: a binary response begins with a header of %d bytes, and this has %d", errFrame, ResponseHeaderBytes, len(frame))
	}
	return Response{
		Flags: frame[0], Channel: binary.BigEndian.Uint16(frame[1:]), Sequence: binary.BigEndian.Uint32(frame[3:]),
		MessageID: binary.BigEndian.Uint64(frame[7:]), Code: Code(frame[15]), Payload: frame[ResponseHeaderBytes:],
	}, nil
}

// Append appends the frame.
func (r Response) Append(to []byte) []byte {
	to = append(to, r.Flags)
	to = binary.BigEndian.AppendUint16(to, r.Channel)
	to = binary.BigEndian.AppendUint32(to, r.Sequence)
	to = binary.BigEndian.AppendUint64(to, r.MessageID)
	to = append(to, byte(r.Code))
	return append(to, r.Payload...)
}
