package connect

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A textRequest is a text frame of a client: a call, or an acknowledgement.
type textRequest struct {
	ID      jsontext.Value `json:"id,omitempty"` // a string or a number, comes back as it is
	Service string         `json:"service,omitempty"`
	Method  string         `json:"method,omitempty"`
	Path    string         `json:"path,omitempty"`
	Channel uint16         `json:"channel,omitempty"`
	Body    jsontext.Value `json:"body,omitempty"`

	Ack *uint32 `json:"ack,omitempty"`
}

// maxTextID bounds the id that a client gives to a call.
const maxTextID = 128

// parseText reads a text frame of a client.
func parseText(frame []byte) (r textRequest, err error) {
	if err := json.Unmarshal(frame, &r, json.RejectUnknownMembers(true)); err != nil {
		return r, fmt.Errorf("%w: a text message is one JSON object, as {\"id\":1,\"path\":\"/auth/logout\",\"body\":{}} or {\"ack\":7}: %w", errFrame, err)
	}
	if r.Ack != nil {
		if r.ID != nil || r.Service != "" || r.Method != "" || r.Path != "" || r.Channel != 0 || r.Body != nil {
			return r, fmt.Errorf("%w: an acknowledgement has the member ack, and nothing else", errFrame)
		}
		return r, nil
	}
	if r.Path == "" {
		return r, fmt.Errorf("%w: the member path is missing", errFrame)
	}
	if kind := r.ID.Kind(); len(r.ID) > maxTextID || r.ID != nil && kind != '"' && kind != '0' {
		return r, fmt.Errorf("%w: the member id is a string or a number, of %d bytes at most", errFrame, maxTextID)
	}
	if r.Method == "" {
		r.Method = "POST"
	}
	if r.Service == "" { // services answer under their names
		r.Service, _, _ = strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
	}
	return r, nil
}

// A textResponse answers one.
type textResponse struct {
	ID     jsontext.Value `json:"id,omitempty"`
	Status int            `json:"status"`
	Code   string         `json:"code,omitempty"` // of a problem
	Body   jsontext.Value `json:"body,omitempty"`
}

// What the gateway says by itself: one of the members.
type textPush struct {
	Hello    *hello        `json:"hello,omitempty"`
	Manifest *textManifest `json:"manifest,omitempty"`
	Event    *textEvent    `json:"event,omitempty"`
}

// hello is the first message of a connection.
type hello struct {
	SessionID              string `json:"sessionId"`
	AccountID              string `json:"accountId"`
	InstanceID             string `json:"instanceId"`
	Resumed                bool   `json:"resumed"` // the session had a connection, and its events have waited
	ReconnectToken         string `json:"reconnectToken"`
	ReconnectWithinSeconds int    `json:"reconnectWithinSeconds"`
	PingSeconds            int    `json:"pingSeconds"`
	MaxMessageBytes        int    `json:"maxMessageBytes"`
	MaxCalls               int    `json:"maxCalls"`
	Window                 int    `json:"window"`
}

// A textManifest is all that the session may call from now on.
type textManifest struct {
	Version   int64          `json:"version"`
	Endpoints []textEndpoint `json:"endpoints"`
}

type textEndpoint struct {
	Service string `json:"service"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	GUID    string `json:"guid"`
}

// A textEvent is one that was published to the session.
type textEvent struct {
	Sequence uint32         `json:"seq"`
	Name     string         `json:"name"` // the topic without session.{id}.
	ID       string         `json:"id"`   // of the event: one that comes again has the same
	Type     string         `json:"type,omitempty"`
	Body     jsontext.Value `json:"body"`
}

// asJSON is a body as a member of a text frame: itself where it is JSON, otherwise as a string.
func asJSON(body []byte) jsontext.Value {
	if len(body) == 0 {
		return nil
	}
	if v := jsontext.Value(body); v.IsValid() {
		return v
	}
	quoted, err := jsontext.AppendQuote(nil, strings.ToValidUTF8(string(body), string(utf8.RuneError)))
	if err != nil { // not for what is UTF-8
		return jsontext.Value(`""`)
	}
	return quoted
}

// encode writes a text frame.
func encode(v any) []byte {
	frame, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true)) // the names of an event are its publisher's; what is no UTF-8 is replaced
	if err != nil {                                                // values of ours, with bodies that are valid
		return []byte(`{}`)
	}
	return frame
}
