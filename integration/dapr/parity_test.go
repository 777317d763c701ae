package dapr_test

import (
	"encoding/base64"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var out = flag.String("out", "", "document whose table of behaviours this run writes") // a flag

// A behaviour is what a caller sees of one thing. dapr is what daprd does where that is something else, and why says whether that is better.
type behaviour struct {
	name   string
	do     func(s *side) string
	facade string
	dapr   string
	why    string
}

const subscriptions = `[
	{"pubsubname":"local","topic":"orders","route":"/on/orders"},
	{"pubsubname":"local","topic":"Mixed_Case/name","route":"/on/mixed"},
	{"pubsubname":"local","topic":"raw","route":"/on/raw","metadata":{"rawPayload":"true"}},
	{"pubsubname":"local","topic":"ruled","routes":{"rules":[{"match":"event.type == \"big\"","path":"/on/big"},{"match":"event.data.n > 5","path":"/on/many"}],"default":"/on/rest"}},
	{"pubsubname":"streams","topic":"plain","route":"/on/stream"},
	{"pubsubname":"broker","topic":"plain","route":"/on/plain"},
	{"pubsubname":"broker","topic":"kept","route":"/on/kept","deadLetterTopic":"dead"},
	{"pubsubname":"broker","topic":"dead","route":"/on/dead"}
]`

// TestParity runs every behaviour on the facade, and on daprd where there is one, each with an app and servers of its own.
func TestParity(t *testing.T) {
	observed := map[string]map[string]string{}
	for _, name := range []string{"facade", "dapr"} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, subscriptions)
			var s *side
			if name == "facade" {
				s = newFacade(t, components(t), a)
			} else {
				s = newDaprd(t, components(t), a)
			}
			observed[name] = map[string]string{}
			for _, b := range behaviours() {
				t.Run(b.name, func(t *testing.T) {
					on := *s
					on.t = t
					want := b.facade
					if name == "dapr" && b.dapr != "" {
						want = b.dapr
					}
					got := b.do(&on)
					observed[name][b.name] = got
					require.Equal(t, want, got)
				})
			}
		})
	}
	if *out != "" {
		require.Len(t, observed["dapr"], len(behaviours()), "the table is of both; 'make daprd' builds the other")
		write(t, *out, observed)
	}
}

// write puts the table between its marks in the document.
func write(t *testing.T, file string, observed map[string]map[string]string) {
	t.Helper()
	var table strings.Builder
	table.WriteString("| behaviour | Dapr 1.14.0 | facade | |\n| --- | --- | --- | --- |\n")
	for _, b := range behaviours() {
		theirs, ours := observed["dapr"][b.name], observed["facade"][b.name]
		verdict := "same"
		if theirs != ours {
			verdict = b.why
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", b.name, cell(theirs), cell(ours), verdict)
	}
	between(t, file, "<!-- behaviours: begin -->\n", "<!-- behaviours: end -->", table.String())
}

// cell is a text in a table.
func cell(s string) string {
	return "`" + strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "`", "'") + "`"
}

// between replaces what stands between two marks in a document.
func between(t *testing.T, file, begin, end, text string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), begin)
	_, after, ended := strings.Cut(rest, end)
	require.True(t, found && ended, "%s has no place for the table", file)
	require.NoError(t, os.WriteFile(file, []byte(before+begin+text+end+after), 0o644))
}

// behaviours are all of them.
func behaviours() []behaviour {
	return slices.Concat(stateBehaviours(), mysqlBehaviours(), eventBehaviours(), streamBehaviours(), otherBehaviours())
}

const stateOf = "/v1.0/state/"

func stateBehaviours() []behaviour {
	return []behaviour{
		{name: "a value is saved, read, deleted and gone", facade: `204, 200 {"a":1}, 204, 204`, do: func(s *side) string {
			return strings.Join([]string{
				s.call("POST", stateOf+"redis", `[{"key":"life","value":{"a":1}}]`), s.call("GET", stateOf+"redis/life", ""),
				s.call("DELETE", stateOf+"redis/life", ""), s.call("GET", stateOf+"redis/life", ""),
			}, ", ")
		}},
		{name: "a save without a value saves null", facade: "204, 200 null", do: func(s *side) string {
			return s.call("POST", stateOf+"memory", `[{"key":"empty"}]`) + ", " + s.call("GET", stateOf+"memory/empty", "")
		}},
		{name: "numbers keep their digits (Redis)", facade: "[9007199254740993,3.141592653589793]", dapr: "[9007199254740992,3.141593]",
			why: "better: no digit is lost", do: func(s *side) string {
				s.call("POST", stateOf+"redis", `[{"key":"digits","value":[9007199254740993,3.141592653589793]}]`)
				_, _, body := s.exchange("GET", stateOf+"redis/digits", "")
				return body
			}},
		{name: "the ETag that a key has is taken, a stale one is not (Redis)", facade: "204, 409 ERR_STATE_SAVE", do: func(s *side) string {
			s.call("POST", stateOf+"redis", `[{"key":"tagged","value":1}]`)
			save := fmt.Sprintf(`[{"key":"tagged","value":2,"etag":%q}]`, s.etag("redis", "tagged"))
			return s.code("POST", stateOf+"redis", save) + ", " + s.code("POST", stateOf+"redis", save)
		}},
		{name: "the ETag that a key has is taken, a stale one is not (memory)", facade: "204, 409 ERR_STATE_SAVE", do: func(s *side) string {
			s.call("POST", stateOf+"memory", `[{"key":"tagged","value":1}]`)
			save := fmt.Sprintf(`[{"key":"tagged","value":2,"etag":%q}]`, s.etag("memory", "tagged"))
			return s.code("POST", stateOf+"memory", save) + ", " + s.code("POST", stateOf+"memory", save)
		}},
		{name: "a save with an ETag of a key that is absent (Redis)", facade: "409 ERR_STATE_SAVE", dapr: "204",
			why: "better: what was deleted meanwhile does not come back", do: func(s *side) string {
				return s.code("POST", stateOf+"redis", `[{"key":"absent","value":1,"etag":"7"}]`)
			}},
		{name: "an ETag that is no number (Redis)", facade: "409 ERR_STATE_SAVE", dapr: "400 ERR_STATE_SAVE", why: "an ETag is opaque: it is another one",
			do: func(s *side) string {
				s.call("POST", stateOf+"redis", `[{"key":"odd","value":1}]`)
				return s.code("POST", stateOf+"redis", `[{"key":"odd","value":1,"etag":"x"}]`)
			}},
		{name: "first-write without an ETag of a key that exists (Redis)", facade: "409 ERR_STATE_SAVE", dapr: "204",
			why: "better: the first writer wins, whoever wrote first", do: func(s *side) string {
				s.call("POST", stateOf+"redis", `[{"key":"first","value":1}]`)
				return s.code("POST", stateOf+"redis", `[{"key":"first","value":2,"options":{"concurrency":"first-write"}}]`)
			}},
		{name: "a delete with a stale ETag (Redis)", facade: "409 ERR_STATE_DELETE", do: func(s *side) string {
			s.call("POST", stateOf+"redis", `[{"key":"del","value":1}]`)
			return s.code("DELETE", stateOf+"redis/del", "", "If-Match", "77")
		}},
		{name: "a delete with an ETag of a key that is absent (Redis)", facade: "409 ERR_STATE_DELETE", dapr: "204",
			why: "the condition does not hold, as with Dapr's MySQL store", do: func(s *side) string {
				return s.code("DELETE", stateOf+"redis/never", "", "If-Match", "77")
			}},
		{name: "a value with ttlInSeconds expires (Redis)", facade: "204, gone", do: func(s *side) string {
			answer := s.call("POST", stateOf+"redis", `[{"key":"short","value":1,"metadata":{"ttlInSeconds":"1"}}]`)
			gone := func() bool { return s.call("GET", stateOf+"redis/short", "") == "204" }
			require.Eventually(s.t, gone, wait, 50*time.Millisecond)
			return answer + ", gone"
		}},
		{name: "a time to live that is no number", facade: "400 ERR_MALFORMED_REQUEST", dapr: "500 ERR_STATE_SAVE", why: "better: it is the caller's mistake",
			do: func(s *side) string {
				return s.code("POST", stateOf+"redis", `[{"key":"ttl","value":1,"metadata":{"ttlInSeconds":"soon"}}]`)
			}},
		{name: "several keys are read at once", facade: `200 [{"key":"b1","data":1},{"key":"none"}]`, do: func(s *side) string {
			s.call("POST", stateOf+"redis", `[{"key":"b1","value":1}]`)
			answer := s.call("POST", stateOf+"redis/bulk", `{"keys":["b1","none"]}`)
			return strings.Replace(answer, `,"etag":"`+s.etag("redis", "b1")+`"`, "", 1)
		}},
		{name: "a transaction is made as a whole (Redis)", facade: "204, 200 2, 204", do: func(s *side) string {
			s.call("POST", stateOf+"redis", `[{"key":"t1","value":1},{"key":"t2","value":1}]`)
			return s.call("POST", stateOf+"redis/transaction", `{"operations":[{"operation":"upsert","request":{"key":"t1","value":2}},{"operation":"delete","request":{"key":"t2"}}]}`) +
				", " + s.call("GET", stateOf+"redis/t1", "") + ", " + s.call("GET", stateOf+"redis/t2", "")
		}},
		{name: "a transaction with a stale ETag (Redis): its answer, and what became of its other key", facade: "409 ERR_STATE_TRANSACTION, 200 1",
			dapr: "500 ERR_STATE_TRANSACTION, 200 2", why: "better: all or nothing, and the status tells a conflict from a failure", do: func(s *side) string {
				s.call("POST", stateOf+"redis", `[{"key":"u1","value":1},{"key":"u2","value":1}]`)
				return s.code("POST", stateOf+"redis/transaction", `{"operations":[{"operation":"upsert","request":{"key":"u1","value":2}},{"operation":"upsert","request":{"key":"u2","value":2,"etag":"77"}}]}`) +
					", " + s.call("GET", stateOf+"redis/u1", "")
			}},
		{name: "a store that there is not", facade: "400 ERR_STATE_STORE_NOT_FOUND", do: func(s *side) string { return s.code("GET", stateOf+"nowhere/k", "") }},
		{name: "a key with the separator of Dapr in it", facade: "400 ERR_MALFORMED_REQUEST", do: func(s *side) string {
			return s.code("POST", stateOf+"redis", `[{"key":"a||b","value":1}]`)
		}},
		{name: "a body that is no JSON", facade: "400 ERR_MALFORMED_REQUEST", do: func(s *side) string { return s.code("POST", stateOf+"redis", `[{`) }},
		{name: "a query of a store that cannot", facade: "500 ERR_STATE_STORE_NOT_SUPPORTED", do: func(s *side) string {
			return s.code("POST", "/v1.0-alpha1/state/memory/query", `{}`)
		}},
	}
}

func otherBehaviours() []behaviour {
	return []behaviour{
		{name: "the sidecar's health", facade: "204, 204", do: func(s *side) string {
			return s.call("GET", "/v1.0/healthz", "") + ", " + s.call("GET", "/v1.0/healthz/outbound", "")
		}},
		{name: "an app calls itself: verb, query, status, header and body pass", facade: "418 PUT a=1&b=%20 hello", do: func(s *side) string {
			status, h, body := s.exchange("PUT", "/v1.0/invoke/app/method/teapot?a=1&b=%20", "hello")
			return fmt.Sprint(status, " ", h.Get("X-App"), " ", body)
		}},
		{name: "an app is named by the header dapr-app-id", facade: "418 GET", do: func(s *side) string {
			status, h, _ := s.exchange("GET", "/teapot", "", "dapr-app-id", "app")
			return strings.TrimSpace(fmt.Sprint(status, " ", h.Get("X-App")))
		}},
		{name: "an app is named by the URL, http://dapr-app-id:app@host", facade: "418 GET", do: func(s *side) string {
			status, h, _ := s.exchange("GET", "/teapot", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("dapr-app-id:app")))
			return strings.TrimSpace(fmt.Sprint(status, " ", h.Get("X-App")))
		}},
		{name: "credentials of a user who is called as an app name no app", facade: "404 ERR_DIRECT_INVOKE", do: func(s *side) string {
			return s.code("GET", "/teapot", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("app:secret")))
		}},
		{name: "a call of an app that there is not", facade: "500 ERR_DIRECT_INVOKE", do: func(s *side) string { return s.code("GET", "/v1.0/invoke/nobody/method/x", "") }},
		{name: "a secret of a file, and one below another", facade: `200 {"plain":"one"}, 200 {"nested:deep":"two"}`, do: func(s *side) string {
			return s.call("GET", "/v1.0/secrets/files/plain", "") + ", " + s.call("GET", "/v1.0/secrets/files/nested:deep", "")
		}},
		{name: "a secret that is a number", facade: `200 {"number":"12345678"}`, dapr: `200 {"number":"%!s(float64=1.2345678e+07)"}`, why: "better: it is the number",
			do: func(s *side) string { return s.call("GET", "/v1.0/secrets/files/number", "") }},
		{name: "a secret of the environment", facade: `200 {"FACADE_TEST":"seen"}`, do: func(s *side) string { return s.call("GET", "/v1.0/secrets/variables/FACADE_TEST", "") }},
		{name: "a secret that there is not", facade: "500 ERR_SECRET_GET", do: func(s *side) string { return s.code("GET", "/v1.0/secrets/files/none", "") }},
		{name: "a store of secrets that there is not", facade: "401 ERR_SECRET_STORE_NOT_FOUND", do: func(s *side) string { return s.code("GET", "/v1.0/secrets/none/a", "") }},
		{name: "a word is put into the metadata", facade: "204, true", do: func(s *side) string {
			put := s.call("PUT", "/v1.0/metadata/word", "said")
			_, _, body := s.exchange(http.MethodGet, "/v1.0/metadata", "")
			return fmt.Sprint(put, ", ", strings.Contains(member(body, "extended"), `"word":"said"`))
		}},
	}
}
