package jsonbody_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

func TestCheck(t *testing.T) {
	limits := jsonbody.Limits{MaxDepth: 4}
	for name, c := range map[string]struct{ body, says string }{
		"empty":                   {"", ""},
		"blank":                   {" \r\n\t", ""},
		"object":                  {` {"a":[{"b":1.00000000000000000001}]} ` + "\n", ""},
		"malformed":               {"{\n  \"a\": 1,,\n}", "line 2, column 10"},
		"truncated":               {`{"a":`, "ends in the middle"},
		"trailing object":         {`{} {}`, "goes on after its JSON object at line 1, column 3"},
		"trailing letters":        {"{}\nxyz", "goes on after"},
		"trailing comma":          {`{"a":1,}`, "not valid JSON"},
		"array":                   {`[{}]`, "one JSON object"},
		"number":                  {`7`, "one JSON object"},
		"null":                    {`null`, "one JSON object"},
		"not JSON":                {`topic=a`, "not valid JSON at line 1"},
		"byte order mark":         {"\xef\xbb\xbf{}", "not valid JSON"},
		"duplicate":               {`{"a":1,"b":{"c":1,"c":2}}`, "same name"},
		"duplicate, other escape": {`{"a":1,"\u0061":2}`, "same name"},
		"invalid UTF-8":           {"{\"a\":\"\xff\"}", "UTF-8"},
		"lone surrogate":          {`{"a":"\ud800"}`, "not valid JSON"},
		"depth allowed":           {`{"a":{"b":{"c":{}}}}`, ""},
		"too deep":                {`{"a":{"b":{"c":{"d":[]}}}}`, "deeper than 4 levels"},
		"far too deep":            {`{"a":` + strings.Repeat("[", 200_000), "deeper than 4 levels"},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := limits.Check([]byte(c.body))
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				require.Equal(t, problem.InvalidJSON, problem.From(err).Code)
				return
			}
			require.NoError(t, err)
			require.True(t, json.Valid(body))
		})
	}
}

func TestMiddlewareHandsOnTheBodyAsItCame(t *testing.T) {
	const sent = "{ \"n\": 12345678901234567890.10 }\n"
	var got string
	h := jsonbody.Middleware(jsonbody.Limits{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			got = string(b)
		}
	}))
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(sent))
	r.Header.Set("Content-Type", "text/plain")
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, sent, got)
}

func TestMiddlewareRefusesWhatIsTooLarge(t *testing.T) {
	h := jsonbody.Middleware(jsonbody.Limits{MaxBytes: 10})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the handler was called")
	}))
	for _, declared := range []int64{11, -1} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"a":1234}x`))
		r.ContentLength = declared
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 413, w.Code)
		require.Contains(t, w.Body.String(), "10 bytes")
	}
}

// Most clients send all of a body before they look at the answer.
func TestWhoSendsTooMuchReadsTheAnswer(t *testing.T) {
	server := httptest.NewServer(jsonbody.Middleware(jsonbody.Limits{})(http.NotFoundHandler()))
	defer server.Close()
	for _, head := range []string{"Content-Length: 8388608\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n800000\r\n"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\n"+head+strings.Repeat(" ", 8<<20)+"\r\n0\r\n\r\n")
		require.NoError(t, err, "the connection was reset while sending")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, 413, response.StatusCode)
	}
}

func TestDecodeErrorNamesTheMember(t *testing.T) {
	type inner struct {
		Priority *int           `json:"priority"`
		Headers  map[string]any `json:"headers"`
	}
	type request struct {
		Topic   string   `json:"topic"`
		Keys    []string `json:"keys"`
		Options inner    `json:"options"`
		Items   []inner  `json:"items"`
		Load    float64  `json:"load"`
		On      bool     `json:"on"`
	}
	for body, want := range map[string][2]string{
		`{"topic":7}`:                      {"topic", "member topic has to be a string, and is or holds a number"},
		`{"options":{"priority":"high"}}`:  {"options.priority", "has to be an integer"},
		`{"options":{"priority":1.5}}`:     {"options.priority", "is number 1.5"},
		`{"options":{"priority":1e30}}`:    {"options.priority", "is number 1e30"},
		`{"options":[]}`:                   {"options", "has to be an object, and is or holds an array"},
		`{"options":{"headers":"x"}}`:      {"options.headers", "has to be an object"},
		`{"keys":{}}`:                      {"keys", "has to be an array"},
		`{"keys":["a",{}]}`:                {"keys", "has to be a string, and is or holds an object"},
		`{"items":[{},{"priority":true}]}`: {"items.priority", "has to be an integer"},
		`{"load":"x"}`:                     {"load", "has to be a number"},
		`{"on":0}`:                         {"on", "has to be true or false"},
	} {
		var r request
		p := jsonbody.DecodeError(json.Unmarshal([]byte(body), &r))
		require.Equal(t, problem.InvalidMember, p.Code, body)
		require.Equal(t, want[0], p.Member, body)
		require.Contains(t, p.Detail, want[1], body)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"b":null}]}`))
	f.Add([]byte("{\"a\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		checked, err := jsonbody.Limits{}.Check(body)
		if err != nil {
			require.Equal(t, problem.InvalidJSON, problem.From(err).Code)
			return
		}
		var object map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(checked, &object), "what passes is an object to the decoder too")
	})
}
