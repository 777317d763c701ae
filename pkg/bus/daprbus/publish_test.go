package daprbus

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An event of another app is one of its source: an inbox that has seen the same id of another source has not seen it.
func TestIdentityOfOtherAppsEvents(t *testing.T) {
	from := func(source string) string {
		m := message("orders", false, []byte(`{"specversion":"1.0","id":"7","source":"`+source+`","data":{"n":1}}`))
		require.Contains(t, string(m.Body), `"eventId":"`+m.ID+`"`)
		return m.ID
	}
	first, again := from("shop"), from("shop")
	require.Len(t, first, 36)
	require.Equal(t, first, again)
	require.NotEqual(t, first, from("stock"))

	const id = "0190a5a0-0000-7000-8000-000000000001"
	for envelope, want := range map[string]string{
		`{"id":"` + id + `","source":"shop","data":{}}`:                       id,
		`{"id":"7","source":"shop","data":{"eventId":"own"}}`:                 "own",
		`{"id":"own","source":"shop","bannouproperties":"","data_base64":""}`: "own",
		`{"id":"7","source":"shop","data":"text"}`:                            first,
		`{"id":"7","source":"shop","data_base64":"YQ=="}`:                     first,
		`{"id":"7","source":"shop","data":{"eventId":null}}`:                  first,
	} {
		require.Equal(t, want, message("orders", false, []byte(envelope)).ID, envelope)
	}
}

// Only a dead letter tells another topic than the one that it came by: the source of an app's event may be any address.
func TestTopicOfOtherAppsEvents(t *testing.T) {
	envelope := []byte(`{"specversion":"1.0","id":"7","source":"https://shop/?topic=elsewhere","data":{}}`)
	require.Equal(t, "orders", message("orders", false, envelope).RoutingKey)
	require.Equal(t, "elsewhere", message("bannou-dlx", true, envelope).RoutingKey)
}
