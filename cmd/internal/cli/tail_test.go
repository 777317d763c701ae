package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamOfEvents(t *testing.T) {
	stream := ": following\n\nid: 1\nevent: A\ntopic: a.b\ndata: {\"n\":1.50}\n\n: still here\n\ntopic: c\ndata: {\ndata: }\n\ntopic: d\ndata: not JSON \x1b[2J\n\n"
	show := func(form string) string {
		var out bytes.Buffer
		c := tailCommand{outputFlag: outputFlag{Output: form}}
		for e, err := range streamed(strings.NewReader(stream)) {
			require.NoError(t, err)
			require.NoError(t, c.show(&stdio{out: &out}, e))
		}
		return out.String()
	}
	require.Equal(t, "a.b {\"n\":1.50}\nc {}\nd \"not JSON \\u001b[2J\"\n", show("table"))
	require.Equal(t, `{"topic":"a.b","type":"A","messageId":"1","event":{"n":1.50}}
{"topic":"c","event":{}}
{"topic":"d","event":"not JSON \u001b[2J"}
`, show("json"))
}

func TestStreamThatBreaksOff(t *testing.T) {
	tooLong := "data: " + strings.Repeat("x", maxEventLine+1)
	for _, err := range streamed(strings.NewReader(tooLong)) {
		require.Error(t, err)
	}
}

// What others put into names must not move the cursor of the terminal that shows them.
func TestTableShowsNoControlCharacters(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, outputFlag{Output: "table"}.print(&stdio{out: &out}, nil, func(t *table) { t.row("a\x1b[2J", "b\nc", "é") }))
	require.Equal(t, "a\ufffd[2J  b\ufffdc  é\n", out.String())
}
