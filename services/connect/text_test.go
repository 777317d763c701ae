package connect

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzText holds that a text frame is refused, or is an acknowledgement or a call, which can be answered as it was asked.
func FuzzText(f *testing.F) {
	for _, frame := range []string{
		``, `{}`, `{"ack":7}`, `{"ack":7,"path":"/a"}`, `{"id":1,"path":"/auth/logout","body":{}}`, `{"id":"a","service":"auth","method":"GET","path":"/a","channel":65535}`,
		`{"id":null,"path":"/a"}`, `{"id":1e999,"path":"/a","body":[1,{"a":"\ud83c\udfb2"}]}`, "{\"path\":\"/\xff\"}",
	} {
		f.Add([]byte(frame), []byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame, answered []byte) {
		r, err := parseText(frame)
		if err != nil {
			require.ErrorIs(t, err, errFrame)
			require.LessOrEqual(t, len(reasonOf(err)), maxReason)
			return
		}
		if r.Ack != nil {
			require.Empty(t, r.Path)
			return
		}
		require.NotEmpty(t, r.Path)
		require.NotEmpty(t, r.Method)
		require.True(t, r.Body == nil || r.Body.IsValid())
		response := string(textReply{r.ID}.frame(answer{status: 200, body: answered}).data)
		require.NotEqual(t, `{}`, response, "an answer that cannot be written")
		require.Contains(t, response, `"status":200`)
		if r.ID != nil {
			require.Contains(t, response, `"id":`)
		}
	})
}
