package connect_test

import (
	"encoding/hex"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
)

// The bytes of frames, as docs/gateway.md has them: other programs depend on each.
func TestGoldenFrames(t *testing.T) {
	request := connect.Request{
		Flags: connect.FlagBinary, Channel: 0x0102, Sequence: 0x03040506, Endpoint: uuid.MustParse("00112233-4455-8677-8899-aabbccddeeff"),
		MessageID: 0x0708090a0b0c0d0e, Payload: []byte("{}"),
	}
	const golden = "01" + "0102" + "03040506" + "00112233445586778899aabbccddeeff" + "0708090a0b0c0d0e" + "7b7d"
	require.Equal(t, golden, hex.EncodeToString(request.Append(nil)))
	frame, err := hex.DecodeString(golden)
	require.NoError(t, err)
	parsed, err := connect.ParseRequest(frame)
	require.NoError(t, err)
	require.Equal(t, request, parsed)

	response := connect.Response{Channel: 0x0102, Sequence: 0x03040506, MessageID: 0x0708090a0b0c0d0e, Code: connect.CodeForbidden, Payload: []byte("{}")}
	const answer = "00" + "0102" + "03040506" + "0708090a0b0c0d0e" + "03" + "7b7d"
	require.Equal(t, answer, hex.EncodeToString(response.Append(nil)))

	ack := connect.Request{Flags: connect.FlagAck, Sequence: 7}
	require.Equal(t, "02"+"0000"+"00000007"+"00000000000000000000000000000000"+"0000000000000000", hex.EncodeToString(ack.Append(nil)))
}

// FuzzRequest holds that whatever comes is refused, or is one frame and no other.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, connect.RequestHeaderBytes-1))
	f.Add(connect.Request{Flags: connect.FlagAck, Sequence: 1}.Append(nil))
	f.Add(connect.Request{Channel: 3, Payload: []byte(`{"a":1}`)}.Append(nil))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := connect.ParseRequest(frame)
		if err != nil {
			return
		}
		require.Equal(t, frame, r.Append(nil))
	})
}
