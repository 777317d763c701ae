package dapr_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

const (
	publish = "/v1.0/publish/"
	asJSON  = "application/json"
)

// again returns what comes of an event that the facade delivers twice, and daprd once: there it looks for as long as the second would take.
func (s *side) again(path, mark string) []string {
	within := wait
	if s.name == "dapr" {
		within = 3 * time.Second
	}
	return s.app.deliveries(path, mark, 2, within)
}

// sent publishes data with a mark, and returns the envelope that comes of it.
func (s *side) sent(to, path, mark, contentType, data string) string {
	s.t.Helper()
	if answer := s.call("POST", publish+to, data, "Content-Type", contentType); answer != "204" {
		return answer
	}
	found := s.app.deliveries(path, mark, 1, wait)
	if len(found) == 0 {
		return "nothing came"
	}
	return found[0]
}

func eventBehaviours() []behaviour {
	return []behaviour{
		{name: "an event in JSON comes in an envelope", do: func(s *side) string {
			e := s.sent("local/orders", "/on/orders", "first-of-all", asJSON, `{"mark":"first-of-all"}`)
			return members(e, "specversion", "type", "source", "topic", "pubsubname", "datacontenttype", "data")
		}, facade: `"1.0" "com.dapr.event.sent" "app" "orders" "local" "application/json" {"mark":"first-of-all"}`},
		{name: "an event of text", do: func(s *side) string {
			return members(s.sent("local/orders", "/on/orders", "some text", "text/plain", "some text"), "datacontenttype", "data")
		}, facade: `"text/plain" "some text"`},
		{name: "an event of bytes", do: func(s *side) string {
			return members(s.sent("local/orders", "/on/orders", "Ynl0ZXM=", "application/octet-stream", "bytes"), "datacontenttype", "data", "data_base64")
		}, facade: `"application/octet-stream"  "Ynl0ZXM="`},
		{name: "numbers of an event keep their digits", do: func(s *side) string {
			return member(s.sent("local/orders", "/on/orders", "digits-of", asJSON, `{"mark":"digits-of","n":9007199254740993}`), "data")
		}, facade: `{"mark":"digits-of","n":9007199254740993}`},
		{name: "an event that is a CloudEvent already passes", do: func(s *side) string {
			e := s.sent("local/orders", "/on/orders", "cloud-one", "application/cloudevents+json",
				`{"specversion":"1.0","id":"cloud-one","source":"elsewhere","type":"made","colour":"blue","datacontenttype":"application/json","data":{"a":1}}`)
			return members(e, "id", "source", "type", "colour", "topic", "data")
		}, facade: `"cloud-one" "elsewhere" "made" "blue" "orders" {"a":1}`},
		{name: "attributes are replaced by metadata", do: func(s *side) string {
			s.call("POST", publish+"local/orders?metadata.cloudevent.id=own-id&metadata.cloudevent.type=own-type", `{"mark":"replaced"}`, "Content-Type", asJSON)
			found := s.app.deliveries("/on/orders", "replaced", 1, wait)
			return members(strings.Join(found, ""), "id", "type")
		}, facade: `"own-id" "own-type"`},
		{name: "a topic in capitals, with a slash", do: func(s *side) string {
			return member(s.sent("local/Mixed_Case/name", "/on/mixed", "mixed-mark", asJSON, `{"mark":"mixed-mark"}`), "data")
		}, facade: `{"mark":"mixed-mark"}`},
		{name: "a raw payload for a subscriber that takes it raw", do: func(s *side) string {
			s.call("POST", publish+"local/raw?metadata.rawPayload=true", "raw", "Content-Type", "text/plain")
			return members(strings.Join(s.app.deliveries("/on/raw", "cmF3", 1, wait), ""), "datacontenttype", "data_base64")
		}, facade: `"application/octet-stream" "cmF3"`},
		{name: "rules choose the route", do: func(s *side) string {
			s.call("POST", publish+"local/ruled?metadata.cloudevent.type=big", `{"mark":"rule","n":1}`, "Content-Type", asJSON)
			s.call("POST", publish+"local/ruled", `{"mark":"rule","n":6}`, "Content-Type", asJSON)
			s.call("POST", publish+"local/ruled", `{"mark":"rule","n":2}`, "Content-Type", asJSON)
			var came []string
			for _, path := range []string{"/on/big", "/on/many", "/on/rest"} {
				came = append(came, member(strings.Join(s.app.deliveries(path, "rule", 1, wait), ""), "data"))
			}
			return strings.Join(came, " ")
		}, facade: `{"mark":"rule","n":1} {"mark":"rule","n":6} {"mark":"rule","n":2}`},
		{name: "several events are published at once", do: func(s *side) string {
			answer := s.call("POST", "/v1.0-alpha1/publish/bulk/local/orders", `[{"entryId":"1","event":{"mark":"in-bulk"},"contentType":"application/json"},{"entryId":"2","event":"in-bulk","contentType":"text/plain"}]`)
			return fmt.Sprint(answer, ", ", len(s.app.deliveries("/on/orders", "in-bulk", 2, wait)), " came")
		}, facade: "204, 2 came"},
		{name: "bytes in a bulk, which are base64 there", do: func(s *side) string {
			answer := s.call("POST", "/v1.0-alpha1/publish/bulk/local/orders", `[{"entryId":"1","event":"YnVsayBieXRlcw==","contentType":"application/octet-stream"}]`)
			found := s.app.deliveries("/on/orders", base64.StdEncoding.EncodeToString([]byte("bulk bytes")), 1, wait)
			return answer + " " + members(strings.Join(found, ""), "datacontenttype", "data_base64")
		}, facade: `204 "application/octet-stream" "YnVsayBieXRlcw=="`},
		{name: "bytes in a bulk that are not base64", do: func(s *side) string {
			return s.code("POST", "/v1.0-alpha1/publish/bulk/local/orders", `[{"entryId":"1","event":"no!","contentType":"application/octet-stream"}]`)
		}, facade: "400 ERR_PUBSUB_EVENTS_SER"},
		{name: "two events of a bulk with the same entryId", do: func(s *side) string {
			return s.code("POST", "/v1.0-alpha1/publish/bulk/local/orders", `[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"1","event":"b","contentType":"text/plain"}]`)
		}, facade: "400 ERR_PUBSUB_EVENTS_SER"},
		{name: "a broker that there is not", do: func(s *side) string { return s.code("POST", publish+"nowhere/orders", "x") }, facade: "404 ERR_PUBSUB_NOT_FOUND"},
		{name: "no topic", do: func(s *side) string { return s.code("POST", publish+"local/", "x") }, facade: "404 ERR_TOPIC_NAME_EMPTY", dapr: "404 ERR_DIRECT_INVOKE",
			why: "better: the same status, and the code says what is missing"},
		{name: "RETRY, once (RabbitMQ): how often it comes", do: func(s *side) string {
			s.call("POST", publish+"broker/plain", `{"mark":"retry-once","answer":"RETRY","once":true}`, "Content-Type", asJSON)
			return fmt.Sprint(len(s.again("/on/plain", "retry-once")))
		}, facade: "2", dapr: "1", why: "better: RETRY is not dropped (requeueInFailure is false by default)"},
		{name: "an answer 500, once (RabbitMQ): how often it comes", do: func(s *side) string {
			s.call("POST", publish+"broker/plain", `{"mark":"fail-once","status":500,"once":true}`, "Content-Type", asJSON)
			return fmt.Sprint(len(s.again("/on/plain", "fail-once")))
		}, facade: "2", dapr: "1", why: "better: a failure is tried again"},
		{name: "DROP (RabbitMQ): how often it comes", do: func(s *side) string {
			s.call("POST", publish+"broker/plain", `{"mark":"dropped","answer":"DROP"}`, "Content-Type", asJSON)
			s.sent("broker/plain", "/on/plain", "after-drop", asJSON, `{"mark":"after-drop"}`)
			return fmt.Sprint(len(s.app.deliveries("/on/plain", "dropped", 1, wait)))
		}, facade: "1"},
		{name: "DROP with a topic of dead letters: the event that comes there", do: func(s *side) string {
			s.call("POST", publish+"broker/kept", `{"answer":"DROP","mark":"kept-drop","once":true}`, "Content-Type", asJSON)
			return members(strings.Join(s.app.deliveries("/on/dead", "kept-drop", 1, wait), ""), "topic", "source", "data")
		}, facade: `"kept" "app" {"answer":"DROP","mark":"kept-drop","once":true}`},
		{name: "an answer 500 at all times, with a topic of dead letters: tries until it comes there", do: func(s *side) string {
			s.call("POST", publish+"broker/kept", `{"mark":"kept-fail","status":500}`, "Content-Type", asJSON)
			if len(s.app.deliveries("/on/dead", "kept-fail", 1, wait)) == 0 {
				return "nothing came"
			}
			return fmt.Sprint(len(s.app.deliveries("/on/kept", "kept-fail", 1, wait)))
		}, facade: "2", dapr: "1", why: "as often as messaging.retryMaxAttempts says, here once more; dapr.retryMaxAttempts 0 is Dapr's way"},
	}
}
