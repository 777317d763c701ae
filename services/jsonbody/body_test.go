package jsonbody

import (
	stdjson "encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/problem"
)

// request has every kind of member that the services' requests have.
type request struct {
	Name    string             `json:"name"`
	Value   stdjson.RawMessage `json:"value"`
	Keys    []string           `json:"keys"`
	Page    int                `json:"page,omitempty,omitzero"`
	On      bool               `json:"on"`
	Load    float64            `json:"load"`
	ETag    *string            `json:"etag,omitempty"`
	Options struct {
		TTL *int64 `json:"ttl,omitempty"`
	} `json:"options,omitempty,omitzero"`
	Items []struct {
		Key   string             `json:"key"`
		Value stdjson.RawMessage `json:"value,omitempty"`
	} `json:"items"`
	Headers map[string]any `json:"headers"`
}

// exact is the reading that decode takes a short cut to.
func exact(l Limits, body []byte) (*request, error) {
	checked, err := l.Check(body)
	if err != nil {
		return nil, err
	}
	v := new(request)
	if err := stdjson.Unmarshal(checked, v); err != nil {
		return nil, DecodeError(err)
	}
	return v, nil
}

func same(t *testing.T, body []byte) {
	t.Helper()
	l := Limits{MaxDepth: 6}.withDefaults()
	want, wantErr := exact(l, body)
	got, err := decode[request](l, body)
	if wantErr != nil {
		require.Error(t, err, "%q", body)
		require.Equal(t, problem.From(wantErr).Detail, problem.From(err).Detail, "%q", body)
		require.Equal(t, problem.From(wantErr).Member, problem.From(err).Member, "%q", body)
		return
	}
	require.NoError(t, err, "%q", body)
	require.Equal(t, want, got, "%q", body)
}

// bodies are what a short cut might take for something else.
var bodies = []string{
	`{}`, ` { } `, ``, ` `, `null`, `[]`, `{`, `{}{}`, `{"name":"a"}`, `{"NAME":"a"}`, `{"name":"a","NAME":"b"}`, `{"n_a-me":"x"}`, `{"name":"a","name":"b"}`,
	`{"name":null,"keys":null,"options":null,"items":null,"etag":null,"value":null,"page":null,"headers":null,"on":null,"load":null}`,
	`{"value": {"a" : [1, 2.50, 123456789012345678901234567890 ] } }`, `{"value":"<b>&"}`, `{"value":-0}`, `{"page":-0}`, `{"page":1.0}`, `{"page":1e2}`,
	`{"page":9223372036854775808}`, `{"load":1e999}`, `{"load":"1"}`, `{"load":1e-999}`, `{"on":0}`, `{"keys":["a",7]}`, `{"keys":[null,"a"]}`, `{"keys":{}}`,
	`{"options":{"ttl":1.5}}`, `{"options":{"ttl":60,"more":1}}`, `{"more":{"deep":[[[[1]]]]}}`, `{"more":{"deep":[[[[[1]]]]]}}`, `{"value":[[[[[[]]]]]]}`,
	`{"value":"[[[[[[[[[["}`, `{"items":[{"key":"a"},{"key":1}]}`, `{"items":[{"key":"a","value":null}]}`, `{"items":[null]}`, `{"items":[{"key":"a","key":"b"}]}`,
	"{\"name\":\"\xff\"}", `{"name":"\ud800"}`, `{"name":"\u0000\ud83d\ude00"}`, "\xef\xbb\xbf{}", `{"name":"a",}`, `{"name":01}`, `{"headers":{"a":1,"b":[{"c":null}]}}`,
	`{"headers":{"a":1,"a":2}}`, `{"value":{"a":1,"a":2}}`, `{"etag":""}`, `{"etag":7}`, `{"name":"a"} x`, `{"na\u006de":"a"}`,
}

func TestTheShortCutTakesNothingElse(t *testing.T) {
	for _, body := range bodies {
		same(t, []byte(body))
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body))
	}
	f.Fuzz(same)
}

// What is decoded does not share memory with the buffer that the next request is read into.
func TestBodiesAreTheirOwn(t *testing.T) {
	read := func(body string) *request {
		v, err := Decode[request](Limits{}, httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		require.NoError(t, err)
		return v
	}
	first := read(`{"name":"first","value":{"n":1},"keys":["one"]}`)
	for range 100 {
		read(`{"name":"other","value":{"m":2},"keys":["two"]}`)
	}
	require.Equal(t, "first", first.Name)
	require.JSONEq(t, `{"n":1}`, string(first.Value))
	require.Equal(t, []string{"one"}, first.Keys)
}

func TestWriteAnswersWithJSON(t *testing.T) {
	for _, size := range []int{1, 1 << 10, 100 << 10} {
		w := httptest.NewRecorder()
		text := strings.Repeat("<", size)
		Write(w, request{Name: text, Value: stdjson.RawMessage(`{"rate":1.10,"gold":9007199254740993}`), Keys: []string{}})
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		var got request
		require.NoError(t, stdjson.Unmarshal(w.Body.Bytes(), &got))
		require.Equal(t, text, got.Name)
		require.Contains(t, w.Body.String(), `"value":{"rate":1.10,"gold":9007199254740993}`)
	}
	w := httptest.NewRecorder()
	Write(w, request{Value: stdjson.RawMessage(`{"broken":`)})
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), `"code":"internal"`)
}
