package hosttest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Kind is the JSON type that a member has to have.
type Kind string

// The kinds of members.
const (
	String  Kind = "string"
	Integer Kind = "integer"
	Number  Kind = "number"
	Boolean Kind = "boolean"
	Object  Kind = "object"
	Array   Kind = "array"
	Any     Kind = "any" // takes every JSON
)

// An Endpoint is one POST endpoint with a body that it accepts.
type Endpoint struct {
	Path string
	// Valid is a body that holds every member of Members and is answered with Status.
	Valid string
	// Status is what a valid body is answered with. Default: 200.
	Status int
	// Required are the members that must not be missing, in the order in which they are looked for, as in Members.
	Required []string
	// Members are all members with their kinds, by dotted path; inside an array its first entry is meant.
	Members map[string]Kind
	// MaxBytes is the limit of the body.
	MaxBytes int
}

// A Target is where endpoints are.
type Target struct {
	URL    string
	Client *http.Client
}

// Answer is what came back for a bad body.
type Answer struct {
	Status int
	Code   string
	Member string
	Detail string
	Body   string
}

func (target Target) do(t testing.TB, method, path string, body []byte) (status int, header http.Header, answer []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target.URL+path, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := target.Client.Do(request)
	require.NoError(t, err)
	answer, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode, response.Header, answer
}

// Post sends a body as it is.
func (target Target) Post(t testing.TB, path string, body []byte) Answer {
	t.Helper()
	status, header, raw := target.do(t, http.MethodPost, path, body)
	a := Answer{Status: status, Body: string(raw)}
	if a.Status < 300 {
		return a
	}
	require.Equal(t, "application/problem+json", header.Get("Content-Type"), "%s", raw)
	var p struct {
		Type, Title, Code, Member, Detail, Instance string
		Status                                      int
	}
	require.NoError(t, json.Unmarshal(raw, &p), "%s", raw)
	require.Equal(t, a.Status, p.Status)
	require.NotEmpty(t, p.Code)
	require.NotEmpty(t, p.Title)
	require.Equal(t, header.Get("X-Request-Id"), p.Instance)
	require.Greater(t, len(p.Detail), 15, "a sentence: %s", raw)
	a.Code, a.Member, a.Detail = p.Code, p.Member, p.Detail
	return a
}

// Refuses posts a body that has to be refused with the code, naming the member if one is given.
func (target Target) Refuses(t testing.TB, path, body string, status int, code, member string) {
	t.Helper()
	a := target.Post(t, path, []byte(body))
	shown := body[:min(len(body), 300)]
	require.Equal(t, status, a.Status, "%s %s: %s", path, shown, a.Body)
	require.Equal(t, code, a.Code, "%s %s: %s", path, shown, a.Body)
	if member != "" {
		require.Equal(t, member, a.Member, "%s %s: %s", path, shown, a.Body)
		require.Contains(t, a.Detail, member, "%s %s: the sentence names the member", path, shown)
	}
}

// Refusals checks all that an endpoint has to refuse whatever it does.
func Refusals(t *testing.T, target Target, endpoints []Endpoint) {
	for _, e := range endpoints {
		t.Run(strings.TrimPrefix(e.Path, "/"), func(t *testing.T) {
			status := e.Status
			if status == 0 {
				status = http.StatusOK
			}
			a := target.Post(t, e.Path, []byte(e.Valid))
			require.Equal(t, status, a.Status, "the valid body: %s", a.Body)
			a = target.Post(t, e.Path, []byte(strings.Replace(e.Valid, "{", `{"anUnknownMember":[1],`, 1)))
			if len(e.Members) > 0 {
				require.Equal(t, status, a.Status, "unknown members are ignored: %s", a.Body)
			}
			notJSON(t, target, e)
			missing(t, target, e)
			wrongTypes(t, target, e)
			otherMethods(t, target, e)
		})
	}
}

func notJSON(t *testing.T, target Target, e Endpoint) {
	for _, body := range []string{
		`{"a":`, `{"a":1,}`, `{a:1}`, `[]`, `[{}]`, `"text"`, `7`, `null`, `true`, `{} {}`, `{}x`, `{"a":1,"a":2}`,
		`{"a":{"b":1,"b":2}}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":01}`, `{"a":NaN}`, "\xef\xbb\xbf{}", "\x00", "a=b",
		`{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		`{"a":` + strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat("}", 5000) + `}`,
	} {
		target.Refuses(t, e.Path, body, 400, "invalid_json", "")
	}
	target.Refuses(t, e.Path, `{"a":"`+strings.Repeat("x", e.MaxBytes)+`"}`, 413, "body_too_large", "")
}

func missing(t *testing.T, target Target, e Endpoint) {
	if len(e.Required) > 0 {
		for _, body := range []string{"", " \n", "{}"} {
			target.Refuses(t, e.Path, body, 400, "missing_member", e.Required[0])
		}
	}
	for _, member := range e.Required {
		target.refusesMember(t, e, e.without(t, member), "missing_member", member)
		if e.Members[member] != Any {
			target.refusesMember(t, e, e.with(t, member, "null"), "missing_member", member)
		}
		if e.Members[member] == String {
			target.refusesMember(t, e, e.with(t, member, `""`), "missing_member", member)
		}
	}
}

func wrongTypes(t *testing.T, target Target, e Endpoint) {
	samples := []struct {
		kind Kind
		json string
	}{
		{String, `"x y"`}, {Number, `1.5`}, {Number, `1e300`}, {Integer, `7`}, {Boolean, `true`}, {Object, `{}`}, {Array, `[]`},
	}
	for member, kind := range e.Members {
		for _, s := range samples {
			fits := kind == Any || kind == s.kind || kind == Number && s.kind == Integer
			if !fits {
				target.refusesMember(t, e, e.with(t, member, s.json), "invalid_member", member)
			}
		}
		if kind == Number {
			target.refusesMember(t, e, e.with(t, member, "1e999"), "invalid_member", member)
		}
	}
}

func otherMethods(t *testing.T, target Target, e Endpoint) {
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		status, _, body := target.do(t, method, e.Path, nil)
		require.Equal(t, http.StatusMethodNotAllowed, status)
		require.Contains(t, string(body), `"code":"method_not_allowed"`)
	}
}

// refusesMember is Refuses for a member that may be inside an array, where the answer may give its place.
func (target Target) refusesMember(t testing.TB, e Endpoint, body, code, member string) {
	t.Helper()
	a := target.Post(t, e.Path, []byte(body))
	require.Equal(t, http.StatusBadRequest, a.Status, "%s %s: %s", e.Path, body, a.Body)
	require.Equal(t, code, a.Code, "%s %s: %s", e.Path, body, a.Body)
	require.Equal(t, member, strings.ReplaceAll(a.Member, "[0]", ""), "%s %s: %s", e.Path, body, a.Body)
	require.Contains(t, a.Detail, a.Member, "%s %s: the sentence names the member", e.Path, body)
}

// with is the valid body with another value for a member.
func (e Endpoint) with(t testing.TB, member, value string) string {
	return e.edit(t, member, func(parent map[string]any, name string) { parent[name] = json.RawMessage(value) })
}

// without is the valid body without a member.
func (e Endpoint) without(t testing.TB, member string) string {
	return e.edit(t, member, func(parent map[string]any, name string) { delete(parent, name) })
}

func (e Endpoint) edit(t testing.TB, member string, change func(parent map[string]any, name string)) string {
	t.Helper()
	var body any
	decoder := json.NewDecoder(strings.NewReader(e.Valid))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&body))
	steps := strings.Split(member, ".")
	at := body
	for _, step := range steps[:len(steps)-1] {
		parent, ok := at.(map[string]any)
		require.True(t, ok, "%s is not in the valid body", member)
		at = parent[step]
		if list, ok := at.([]any); ok {
			require.NotEmpty(t, list, "%s is not in the valid body", member)
			at = list[0]
		}
	}
	parent, ok := at.(map[string]any)
	require.True(t, ok, "%s is not in the valid body", member)
	require.Contains(t, parent, steps[len(steps)-1], "%s is not in the valid body", member)
	change(parent, steps[len(steps)-1])
	edited, err := json.Marshal(body)
	require.NoError(t, err)
	return string(edited)
}

// Fuzz posts arbitrary bytes to every endpoint. What it looks for: a panic, an answer of 5xx, an answer that is no JSON,
// a refusal that is no problem.
func Fuzz(f *testing.F, target Target, endpoints []Endpoint) {
	for i, e := range endpoints {
		f.Add(uint8(i), []byte(e.Valid))
		f.Add(uint8(i), []byte(`{"`+strings.Join(e.Required, `":"x","`)+`":1}`))
	}
	f.Add(uint8(0), []byte("{\"key\":\"\\u0000\"}"))
	paths := make([]string, len(endpoints))
	for i, e := range endpoints {
		paths[i] = e.Path
	}
	slices.Sort(paths)
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		path := paths[int(which)%len(paths)]
		a := target.Post(t, path, body)
		if a.Status >= http.StatusInternalServerError {
			t.Fatalf("%s %q: %d %s", path, body, a.Status, a.Body)
		}
	})
}
