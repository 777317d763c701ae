package dapr_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A crossing is a behaviour in which one side does something and the other sees it, both on the same servers.
type crossing struct {
	name string
	do   func(from, to *side) string
	// want is what is seen; of what a daprd did and of what a facade did, where that is not the same.
	want, ofDapr string
	why          string
}

// pairs are who does and who sees.
func pairs() [][2]string {
	return [][2]string{{"dapr", "dapr"}, {"native", "native"}, {"dapr", "native"}, {"native", "dapr"}}
}

// TestParityMixed runs every crossing with a real daprd and the facade on the same rows and brokers, in all four ways.
func TestParityMixed(t *testing.T) {
	set := servers.All(t)
	const prefix = "  - name: keyPrefix\n    value: both\n"
	resources := []string{
		redisComponent("redis", "state.redis", set.Redis) + prefix, mysqlComponent("mysql", set.MySQL, "keyPrefix", "both"),
		lossless(set.RabbitMQ), redisComponent("streams", "pubsub.redis", set.Redis),
	}
	settings := filepath.Join(t.TempDir(), "bannou.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("messaging:\n  daprTopics:\n    mixed: {publish: envelope, durable: true, deletedWhenUnused: false}\n"), 0o600))
	const subscribed = `[{"pubsubname":"broker","topic":"mixed","route":"/on/broker"},{"pubsubname":"streams","topic":"mixed","route":"/on/streams"}]`
	sides := map[string]*side{"dapr": newDaprd(t, resources, newApp(t, subscribed)), "native": newFacade(t, resources, newApp(t, subscribed), "--config", settings)}
	observed := map[string][]string{}
	for _, c := range crossings() {
		for _, pair := range pairs() {
			t.Run(c.name+"/"+pair[0]+" to "+pair[1], func(t *testing.T) {
				from, to := *sides[pair[0]], *sides[pair[1]]
				from.t, to.t = t, t
				want := c.want
				if pair[0] == "dapr" && c.ofDapr != "" {
					want = c.ofDapr
				}
				got := c.do(&from, &to)
				observed[c.name] = append(observed[c.name], got)
				require.Equal(t, want, got)
			})
		}
	}
	if *out != "" {
		writeMixed(t, filepath.Join(filepath.Dir(*out), "dapr-same-brokers.md"), observed)
	}
}

// writeMixed puts the table between its marks in the document.
func writeMixed(t *testing.T, file string, observed map[string][]string) {
	t.Helper()
	var table strings.Builder
	table.WriteString("| what one does and the other sees | Dapr to Dapr | native to native | Dapr to native | native to Dapr | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, c := range crossings() {
		fmt.Fprintf(&table, "| %s |", c.name)
		verdict := "same"
		for _, got := range observed[c.name] {
			table.WriteString(" " + cell(got) + " |")
			if got != observed[c.name][0] {
				verdict = c.why
			}
		}
		table.WriteString(" " + verdict + " |\n")
	}
	between(t, file, "<!-- mixed: begin -->\n", "<!-- mixed: end -->", table.String())
}

func crossings() []crossing {
	var all []crossing
	for _, store := range []string{"redis", "mysql"} {
		all = append(all, stateCrossings(store)...)
	}
	for _, broker := range []string{"broker", "streams"} {
		all = append(all, eventCrossings(broker)...)
	}
	return all
}

func stateCrossings(store string) []crossing {
	path := stateOf + store
	title := map[string]string{"redis": " (Redis)", "mysql": " (MySQL)"}[store]
	rounded := map[string]string{"redis": "[9007199254740992,3.141593]", "mysql": "[9007199254740992,3.141592653589793]"}[store]
	save := func(s *side, key, value, more string) string {
		return s.code("POST", path, `[{"key":"`+key+`","value":`+value+more+`}]`)
	}
	return []crossing{
		{name: "a value is read" + title, want: `200 {"a":1,"b":"text"}`, do: func(from, to *side) string {
			save(from, "read", `{"a":1,"b":"text"}`, "")
			status, _, body := to.exchange("GET", path+"/read", "")
			value := jsontext.Value(body)
			require.NoError(to.t, value.Canonicalize(), body) // daprd writes members in any order
			return strconv.Itoa(status) + " " + string(value)
		}},
		{name: "the digits of numbers" + title, want: "[9007199254740993,3.141592653589793]", ofDapr: rounded,
			why: "as its writer keeps them: daprd rounds what comes over HTTP", do: func(from, to *side) string {
				save(from, "digits", "[9007199254740993,3.141592653589793]", "")
				_, _, body := to.exchange("GET", path+"/digits", "")
				return body
			}},
		{name: "an ETag that was read before the other's write is refused" + title, want: "204, 409 ERR_STATE_SAVE, 204", do: func(from, to *side) string {
			save(to, "tag", "1", "")
			tag := func(s *side, etag string) string { return save(s, "tag", "2", `,"etag":"`+etag+`"`) }
			old := to.etag(store, "tag")
			return tag(from, from.etag(store, "tag")) + ", " + tag(to, old) + ", " + tag(to, to.etag(store, "tag"))
		}},
		{name: "a delete is seen" + title, want: "204, 204", do: func(from, to *side) string {
			save(to, "gone", "1", "")
			return from.call("DELETE", path+"/gone", "") + ", " + to.call("GET", path+"/gone", "")
		}},
		{name: "a time to live ends" + title, want: "200 1, gone", do: func(from, to *side) string {
			var seen string
			for until := time.Now().Add(wait); ; { // a read that comes late says nothing
				saved := time.Now()
				save(from, "brief", "1", `,"metadata":{"ttlInSeconds":"3"}`)
				seen = to.call("GET", path+"/brief", "")
				if seen == "200 1" || time.Since(saved) < time.Second || time.Now().After(until) {
					break
				}
			}
			require.Eventually(to.t, func() bool { return to.call("GET", path+"/brief", "") == "204" }, wait, 50*time.Millisecond)
			return seen + ", gone"
		}},
		{name: "a transaction is seen" + title, want: `204, 200 "new", 204`, do: func(from, to *side) string {
			save(to, "t1", `"old"`, "")
			save(to, "t2", `"old"`, "")
			return from.call("POST", path+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"t1","value":"new"}},{"operation":"delete","request":{"key":"t2"}}]}`) +
				", " + to.call("GET", path+"/t1", "") + ", " + to.call("GET", path+"/t2", "")
		}},
	}
}

func eventCrossings(broker string) []crossing {
	title := map[string]string{"broker": " (RabbitMQ)", "streams": " (Redis)"}[broker]
	sent := func(from, to *side, query, mark, contentType, data string) string {
		if answer := from.call("POST", publish+broker+"/mixed"+query, data, "Content-Type", contentType); answer != "204" {
			return answer
		}
		return strings.Join(to.app.deliveries("/on/"+broker, mark, 1, wait), "")
	}
	mark := func(from, to *side, what string) string { return what + "-" + from.name + "-" + to.name }
	return []crossing{
		{name: "an event in JSON" + title, want: `"1.0" "com.dapr.event.sent" "app" "mixed" "` + broker + `" "application/json" 9007199254740993`, do: func(from, to *side) string {
			m := mark(from, to, "json")
			e := sent(from, to, "", m, asJSON, `{"mark":"`+m+`","n":9007199254740993}`)
			return members(e, "specversion", "type", "source", "topic", "pubsubname", "datacontenttype") + " " + member(member(e, "data"), "n")
		}},
		{name: "an event of text" + title, want: `"text/plain" true`, do: func(from, to *side) string {
			m := mark(from, to, "text")
			e := sent(from, to, "", m, "text/plain", m)
			return member(e, "datacontenttype") + " " + fmt.Sprint(member(e, "data") == `"`+m+`"`)
		}},
		{name: "attributes of the publisher's own" + title, want: `"made" true`, do: func(from, to *side) string {
			m := mark(from, to, "own")
			e := sent(from, to, "?metadata.cloudevent.type=made&metadata.cloudevent.id="+m, m, asJSON, `{"a":1}`)
			return member(e, "type") + " " + fmt.Sprint(member(e, "id") == `"`+m+`"`)
		}},
		{name: "an event that is a CloudEvent already" + title, want: `"elsewhere" "blue" {"a":1}`, do: func(from, to *side) string {
			m := mark(from, to, "cloud")
			e := sent(from, to, "", m, "application/cloudevents+json",
				`{"specversion":"1.0","id":"`+m+`","source":"elsewhere","type":"made","colour":"blue","datacontenttype":"application/json","data":{"a":1}}`)
			return members(e, "source", "colour", "data")
		}},
	}
}
