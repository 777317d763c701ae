package messaging_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/bannou-mesh/bannou/services/messaging"
	"github.com/bannou-mesh/bannou/services/problem"

	. "github.com/bannou-mesh/bannou/services/host/hosttest"
)

const maxBody = 4 << 20

// The callbacks of these bodies are never called: nobody publishes to their topics.
var endpoints = []Endpoint{
	{Path: "/messaging/publish", MaxBytes: maxBody, Required: []string{"topic", "payload"},
		Valid: `{"topic":"a.b","payload":{"n":1},"options":{"exchange":"bannou","exchangeType":"topic","routingKey":"a.b","persistent":true,
			"priority":3,"correlationId":"c","expiration":60000,"headers":{"h":"v"},"mandatory":false,"partitionKey":"p"}}`,
		Members: map[string]Kind{"topic": String, "payload": Object, "options": Object, "options.exchange": String,
			"options.exchangeType": String, "options.routingKey": String, "options.persistent": Boolean, "options.priority": Integer,
			"options.correlationId": String, "options.expiration": Integer, "options.headers": Object, "options.mandatory": Boolean,
			"options.partitionKey": String}},
	{Path: "/messaging/subscribe", MaxBytes: maxBody, Required: []string{"topic", "callbackUrl"},
		Valid: `{"topic":"sub.one","callbackUrl":"http://127.0.0.1:9/","options":{"group":"g","durable":true,"exclusive":false,
			"autoAck":false,"prefetchCount":5,"useDeadLetter":true}}`,
		Members: map[string]Kind{"topic": String, "callbackUrl": String, "options": Object, "options.group": String,
			"options.durable": Boolean, "options.exclusive": Boolean, "options.autoAck": Boolean, "options.prefetchCount": Integer,
			"options.useDeadLetter": Boolean}},
	{Path: "/messaging/unsubscribe", MaxBytes: maxBody, Valid: `{"subscriptionId":"none"}`, Status: 404,
		Required: []string{"subscriptionId"}, Members: map[string]Kind{"subscriptionId": String}},
	{Path: "/messaging/tap/create", MaxBytes: maxBody, Required: []string{"topic", "exchange"},
		Valid:   `{"topic":"tapped.one","exchange":"audit","options":{"durable":true}}`,
		Members: map[string]Kind{"topic": String, "exchange": String, "options": Object, "options.durable": Boolean}},
	{Path: "/messaging/tap/delete", MaxBytes: maxBody, Valid: `{"tapId":"none"}`, Status: 404,
		Required: []string{"tapId"}, Members: map[string]Kind{"tapId": String}},
	{Path: "/messaging/list-topics", MaxBytes: maxBody, Valid: `{"exchangeFilter":"b","includeEmpty":true}`,
		Members: map[string]Kind{"exchangeFilter": String, "includeEmpty": Boolean}},
	{Path: "/messaging/outbox/list", MaxBytes: maxBody, Valid: `{"limit":5,"cursor":"7"}`, Status: 400, // this node has none
		Members: map[string]Kind{"limit": Integer, "cursor": String}},
	{Path: "/messaging/outbox/retry", MaxBytes: maxBody, Valid: `{"ids":["7"],"all":false}`, Status: 400,
		Members: map[string]Kind{"ids": Array, "all": Boolean}},
	{Path: "/messaging/outbox/discard", MaxBytes: maxBody, Valid: `{"ids":["7"],"all":false}`, Status: 400,
		Members: map[string]Kind{"ids": Array, "all": Boolean}},
	{Path: "/messaging/dead-letters/list", MaxBytes: maxBody,
		Valid: `{"filter":` + letterFilter + `,"order":"oldest","limit":5,"cursor":"none"}`, Status: 404,
		Members: map[string]Kind{"filter": Object, "filter.ids": Array, "filter.topic": String, "filter.queue": String, "filter.handler": String,
			"filter.reason": String, "filter.errorContains": String, "filter.since": String, "filter.until": String,
			"order": String, "limit": Integer, "cursor": String}},
	{Path: "/messaging/dead-letters/get", MaxBytes: maxBody, Valid: `{"id":"none"}`, Status: 404,
		Required: []string{"id"}, Members: map[string]Kind{"id": String}},
	{Path: "/messaging/dead-letters/replay", MaxBytes: maxBody,
		Valid:   `{"filter":` + letterFilter + `,"ids":[],"all":false,"dryRun":true,"progress":false,"actor":"me"}`,
		Members: map[string]Kind{"filter": Object, "ids": Array, "all": Boolean, "dryRun": Boolean, "progress": Boolean, "actor": String}},
	{Path: "/messaging/dead-letters/discard", MaxBytes: maxBody,
		Valid:   `{"filter":` + letterFilter + `,"ids":[],"all":false,"dryRun":true,"progress":false,"actor":"me"}`,
		Members: map[string]Kind{"filter": Object, "ids": Array, "all": Boolean, "dryRun": Boolean, "progress": Boolean, "actor": String}},
}

const letterFilter = `{"ids":["a"],"topic":"a.#","queue":"a.b","handler":"b","reason":"permanent","errorContains":"x",
	"since":"2020-01-01T00:00:00Z","until":"2030-01-01T00:00:00Z"}`

func TestRefusals(t *testing.T) {
	n := newBroker(t).start(t)
	Refusals(t, Target{URL: n.url, Client: n.client}, endpoints)
}

func TestRefusalsOfMessaging(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	target := Target{URL: n.url, Client: n.client}
	long := strings.Repeat("t", 256)
	publish := func(options string) string { return `{"topic":"a.b","payload":{},"options":` + options + `}` }
	subscribe := func(url, options string) string {
		return `{"topic":"a.b","callbackUrl":"` + url + `","options":` + options + `}`
	}
	const here = "http://127.0.0.1:9/"
	for _, c := range []struct {
		path, body   string
		status       int
		code, member string
	}{
		{"publish", `{"topic":"` + long + `","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"a.*","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"A.B","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"a..b","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"bannou-dlx-store","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", publish(`{"routingKey":"auth:victim"}`), 400, "invalid_member", "options.routingKey"},
		{"publish", publish(`{"routingKey":"bannou-dlx-store"}`), 400, "invalid_member", "options.routingKey"},
		{"subscribe", `{"topic":"bannou-dlx-store","callbackUrl":"http://127.0.0.1:1/"}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"a\u0000","payload":{}}`, 400, "invalid_member", "topic"},
		{"publish", `{"topic":"a","payload":"text"}`, 400, "invalid_member", "payload"},
		{"publish", `{"topic":"a","payload":[{}]}`, 400, "invalid_member", "payload"},
		{"publish", `{"topic":"a","payload":{"eventId":7}}`, 400, "invalid_member", "payload"},
		{"publish", `{"topic":"a","payload":{"timestamp":"yesterday"}}`, 400, "invalid_member", "payload"},
		{"publish", publish(`{"priority":10}`), 400, "invalid_member", "options.priority"},
		{"publish", publish(`{"priority":-1}`), 400, "invalid_member", "options.priority"},
		{"publish", publish(`{"expiration":0}`), 400, "invalid_member", "options.expiration"},
		{"publish", publish(`{"expiration":9223372036854775807}`), 400, "invalid_member", "options.expiration"},
		{"publish", publish(`{"exchangeType":"fanout"}`), 400, "unsupported", "options.exchangeType"},
		{"publish", publish(`{"correlationId":"` + long + `"}`), 400, "invalid_member", "options.correlationId"},
		{"publish", publish(`{"partitionKey":"` + long + `"}`), 400, "invalid_member", "options.partitionKey"},
		{"publish", publish(`{"routingKey":"` + long + `"}`), 400, "invalid_member", "options.routingKey"},
		{"publish", publish(`{"exchange":"` + long + `"}`), 400, "invalid_member", "options.exchange"},
		{"publish", publish(`{"expiration":4294967296}`), 400, "invalid_member", "options.expiration"}, // 2^32: more than RabbitMQ takes
		{"publish", publish(`{"headers":{` + manyHeaders(8) + `}}`), 400, "invalid_member", "options.headers"},
		{"publish", publish(`{"headers":{"":"v"}}`), 400, "invalid_member", "options.headers"},
		{"publish", publish(`{"headers":{"h":7}}`), 400, "invalid_member", "options.headers"},
		{"publish", `{"topic":"nobody.listens","payload":{},"options":{"mandatory":true}}`, 422, "unroutable", ""},

		{"subscribe", subscribe("not a url", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("/relative", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("ftp://127.0.0.1/", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("http://", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("http://user:secret@127.0.0.1/", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("http://127.0.0.1:99999/", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("http://host.invalid/", `{}`), 400, "invalid_member", "callbackUrl"},
		{"subscribe", subscribe("http://10.0.0.1/", `{}`), 403, "callback_not_allowed", "callbackUrl"},
		{"subscribe", subscribe("http://169.254.169.254/latest", `{}`), 403, "callback_not_allowed", "callbackUrl"},
		{"subscribe", subscribe("http://0.0.0.0:80/", `{}`), 403, "callback_not_allowed", "callbackUrl"},
		{"subscribe", subscribe("http://[::ffff:10.0.0.1]/", `{}`), 403, "callback_not_allowed", "callbackUrl"},
		{"subscribe", `{"topic":"` + long + `","callbackUrl":"` + here + `"}`, 400, "invalid_member", "topic"},
		{"subscribe", `{"topic":"a b","callbackUrl":"` + here + `"}`, 400, "invalid_member", "topic"},
		{"subscribe", subscribe(here, `{"prefetchCount":0}`), 400, "invalid_member", "options.prefetchCount"},
		{"subscribe", subscribe(here, `{"prefetchCount":1001}`), 400, "invalid_member", "options.prefetchCount"},
		{"subscribe", subscribe(here, `{"group":"g"}`), 400, "invalid_member", "options.group"},
		{"subscribe", subscribe(here, `{"durable":true,"group":"`+long+`"}`), 400, "invalid_member", "options.group"},
		{"subscribe", subscribe(here, `{"durable":true,"group":"a b"}`), 400, "invalid_member", "options.group"},
		{"publish", publish(`{"headers":{"forwarded-through":"audit"}}`), 400, "invalid_member", "options.headers"},
		{"publish", publish(`{"headers":{"CC":"other.queue"}}`), 400, "invalid_member", "options.headers"},
		{"publish", publish(`{"headers":{"BCC":"other.queue"}}`), 400, "invalid_member", "options.headers"},
		{"tap/create", `{"topic":"a b","exchange":"audit"}`, 400, "invalid_member", "topic"},
		{"tap/create", `{"topic":"` + strings.Repeat("t", 250) + `","exchange":"audit"}`, 400, "invalid_member", "topic"},
		{"tap/create", `{"topic":"#","exchange":"bannou"}`, 400, "invalid_member", "exchange"},
		{"tap/create", `{"topic":"#","exchange":"bannou-dlx"}`, 400, "invalid_member", "exchange"},
		{"tap/create", `{"topic":"#","exchange":"a,b"}`, 400, "invalid_member", "exchange"},
		{"tap/create", `{"topic":"#","exchange":"a b"}`, 400, "invalid_member", "exchange"},
		{"tap/create", `{"topic":"#","exchange":"` + long + `"}`, 400, "invalid_member", "exchange"},
		{"tap/delete", `{"tapId":"` + long + `"}`, 404, "not_found", "tapId"},
		{"unsubscribe", `{"subscriptionId":"` + long + `"}`, 404, "not_found", "subscriptionId"},

		{"outbox/list", `{"limit":0}`, 400, "invalid_member", "limit"},
		{"outbox/list", `{"cursor":"x"}`, 400, "invalid_member", "cursor"},
		{"outbox/list", `{}`, 400, "unsupported", ""},
		{"outbox/retry", `{}`, 400, "missing_member", "ids"},
		{"outbox/retry", `{"ids":["x"]}`, 400, "invalid_member", "ids"},
		{"outbox/discard", `{"ids":["1"],"all":true}`, 400, "invalid_member", "all"},
		{"dead-letters/list", `{"limit":0}`, 400, "invalid_member", "limit"},
		{"dead-letters/list", `{"limit":1001}`, 400, "invalid_member", "limit"},
		{"dead-letters/list", `{"order":"best"}`, 400, "invalid_member", "order"},
		{"dead-letters/list", `{"cursor":"none"}`, 404, "not_found", "cursor"},
		{"dead-letters/list", `{"filter":{"since":"yesterday"}}`, 400, "invalid_member", "filter.since"},
		{"dead-letters/list", `{"filter":{"since":"2020-01-02T00:00:00Z","until":"2020-01-01T00:00:00Z"}}`, 400, "invalid_member", "filter.until"},
		{"dead-letters/list", `{"filter":{"topic":"` + long + `"}}`, 400, "invalid_member", "filter.topic"},
		{"dead-letters/get", `{"id":"` + long + `"}`, 404, "not_found", "id"},
		{"dead-letters/replay", `{}`, 400, "invalid_member", "all"},
		{"dead-letters/replay", `{"filter":{},"ids":[]}`, 400, "invalid_member", "all"},
		{"dead-letters/replay", `{"ids":["a"],"filter":{"topic":"a"}}`, 400, "invalid_member", "filter"},
		{"dead-letters/replay", `{"ids":[""]}`, 400, "invalid_member", "ids"},
		{"dead-letters/discard", `{}`, 400, "invalid_member", "all"},
		{"dead-letters/discard", `{"all":true,"actor":"` + long + `"}`, 400, "invalid_member", "actor"},
		{"dead-letters/discard", `{"ids":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, 400, "invalid_member", "ids"},

		{"tail", `{"topic":7}`, 400, "invalid_member", "topic"},
		{"tail", `{"topic":null}`, 400, "missing_member", "topic"},
		{"tail", ``, 400, "missing_member", "topic"},
		{"tail", `{"topic":"a.B"}`, 400, "invalid_member", "topic"},
		{"tail", `[]`, 400, "invalid_json", ""},
		{"tail", `{"topic":"a","topic":"b"}`, 400, "invalid_json", ""},
		{"tail", `{"topic":"` + strings.Repeat("a", maxBody) + `"}`, 413, "body_too_large", ""},
	} {
		target.Refuses(t, "/messaging/"+c.path, c.body, c.status, c.code, c.member)
	}
	if a := target.Post(t, "/messaging/subscribe", []byte(subscribe("http://user:secret@127.0.0.1/", `{}`))); strings.Contains(a.Body, "secret") {
		t.Fatal("the answer repeats a password")
	}
	bare := b.start(t, func(c *messaging.Config) { c.Factory = nil })
	storeless := Target{URL: bare.url, Client: bare.client}
	storeless.Refuses(t, "/messaging/subscribe", subscribe(here, `{"durable":true}`), 400, "unsupported", "options.durable")
	storeless.Refuses(t, "/messaging/tap/create", `{"topic":"#","exchange":"audit","options":{"durable":true}}`, 400, "unsupported", "options.durable")
}

func FuzzBodies(f *testing.F) {
	n := newBroker(f).start(f)
	Fuzz(f, Target{URL: n.url, Client: n.client}, endpoints)
}

// manyHeaders are n headers of the greatest length.
func manyHeaders(n int) string {
	headers := make([]string, n)
	for i := range headers {
		headers[i] = `"h` + strconv.Itoa(i) + `":"` + strings.Repeat("v", 8<<10) + `"`
	}
	return strings.Join(headers, ",")
}

// Who may publish is asked about the topic and about the key that an event is sent by.
func TestWhoMayPublishIsAsked(t *testing.T) {
	n := newBroker(t).start(t, func(c *messaging.Config) {
		c.MayPublish = func(_ context.Context, topic string) error {
			if strings.HasPrefix(topic, "closed.") {
				return problem.New(problem.Forbidden, "not on %q", topic)
			}
			return nil
		}
		c.MaySubscribe = func(_ context.Context, pattern string) error {
			if pattern == "#" {
				return problem.New(problem.Forbidden, "not all")
			}
			return nil
		}
	})
	for _, request := range []string{"subscribe", "tail", "tap/create"} {
		status, answer := n.post("/messaging/"+request, `{"topic":"#"`+map[string]string{
			"subscribe": `,"callbackUrl":"http://127.0.0.1:1/"`, "tap/create": `,"exchange":"other"`}[request]+`}`)
		if status != 403 {
			t.Errorf("%s: %d %v", request, status, answer)
		}
	}
	for body, want := range map[string]int{
		`{"topic":"a.b","payload":{}}`:                                                               200,
		`{"topic":"closed.b","payload":{}}`:                                                          403,
		`{"topic":"closed.b","payload":{},"options":{"routingKey":"a.b"}}`:                           403,
		`{"topic":"a.b","payload":{},"options":{"routingKey":"closed.b"}}`:                           403,
		`{"topic":"a.b","payload":{},"options":{"routingKey":"closed.b","exchange":"bannou"}}`:       403,
		`{"topic":"a.b","payload":{},"options":{"routingKey":"b.closed","correlationId":"closed."}}`: 200,
	} {
		status, answer := n.post("/messaging/publish", body)
		if status != want {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	if status, answer := n.post("/messaging/tap/create", `{"topic":"a.b","exchange":"bannou"}`); status != 400 {
		t.Errorf("a tap into the node's own exchange: %d %v", status, answer)
	}
}
