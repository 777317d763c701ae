package cloudevents

import (
	"bytes"
	"encoding/base64"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// What an event has on the bus beside its data where it was, or may be, in an envelope.
const (
	// HeaderAttributes are the attributes of the CloudEvent, all but its data, as a JSON object.
	HeaderAttributes = "cloudevent"
	// HeaderForm says how the data stands in the envelope: json, text or base64.
	HeaderForm = "cloudevent-data"
	// HeaderStamped is how many bytes the bus has put after the first brace of the data: an eventId and a timestamp, which every event has there.
	HeaderStamped = "cloudevent-stamped"
)

// The values of HeaderForm.
const (
	FormJSON   = "json"
	FormText   = "text"
	FormBase64 = "base64"
)

const (
	// ContentType is that of an envelope.
	ContentType = "application/cloudevents+json"
	// TypeOfDapr is the type of events to which their publisher gave none.
	TypeOfDapr = "com.dapr.event.sent"

	contentTypeJSON  = "application/json"
	contentTypeBytes = "application/octet-stream"
)

// FormOf is how data of a content type stands in an envelope.
func FormOf(contentType string, data []byte) string {
	switch {
	case IsJSON(contentType) && jsontext.Value(data).IsValid():
		return FormJSON
	case utf8.Valid(data) && !IsBytes(contentType):
		return FormText
	default:
		return FormBase64
	}
}

// IsJSON reports whether data of a content type is JSON.
func IsJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == contentTypeJSON || strings.HasSuffix(media, "+json"))
}

// IsBytes reports whether data of a content type is bytes that nobody reads as text.
func IsBytes(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == contentTypeBytes
}

// Join is an envelope: the attributes in the order of their names, and the data in its form.
func Join(attributes map[string]jsontext.Value, form string, data []byte) []byte {
	member, value := "data", jsontext.Value(data)
	switch form {
	case FormText:
		value = Quote(string(data))
	case FormBase64:
		member, value = "data_base64", Quote(base64.StdEncoding.EncodeToString(data))
	}
	whole := Object(attributes)
	whole = append(whole[:len(whole)-1], `,"`+member+`":`...)
	return append(append(whole, value...), '}')
}

// Unstamped is a body as it was published: without what the bus has put in, as its headers say.
func Unstamped(headers map[string]string, body []byte) []byte {
	n, err := strconv.Atoi(headers[HeaderStamped])
	begin := bytes.IndexByte(body, '{') + 1
	if err != nil || n <= 0 || begin == 0 || begin+n > len(body) {
		return body
	}
	return slices.Concat(body[:begin], body[begin+n:])
}

// Quote is a JSON string. What is not UTF-8 in it is replaced.
func Quote(s string) jsontext.Value {
	quoted, _ := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD")) // valid UTF-8 can be quoted
	return quoted
}

// Object is a JSON object with its members in the order of their names.
func Object(members map[string]jsontext.Value) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(Quote(name))
		b.WriteByte(':')
		b.Write(members[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}
