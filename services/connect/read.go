package connect

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/services/problem"
)

// errFlood reports a client that goes on to send what is refused.
var errFlood = errors.New("flood")

// takeAll takes messages until the connection ends, and says why it did.
func (v *session) takeAll() error {
	for {
		kind, reader, err := v.conn.NextReader()
		if err != nil {
			return err
		}
		message, err := io.ReadAll(reader)
		if err != nil {
			return err
		}
		v.hear()
		v.s.meter.in(1)
		if err := v.take(kind, message); err != nil {
			return err
		}
		if v.life.Err() != nil {
			return v.life.Err()
		}
	}
}

// take does what a message asks for. Only what is no frame, or too much, is an error.
func (v *session) take(kind int, message []byte) error {
	if kind == websocket.BinaryMessage {
		r, err := ParseRequest(message)
		if err != nil {
			return err
		}
		if r.Flags&FlagAck != 0 {
			return v.acknowledge(r.Sequence)
		}
		c := call{reply: binaryReply{r}, channel: r.Channel, body: r.Payload, contentType: contentType(r.Flags)}
		c.endpoint, c.allowed = v.byGUID(r)
		return v.ask(c)
	}
	r, err := parseText(message)
	if err != nil {
		return err
	}
	if r.Ack != nil {
		return v.acknowledge(*r.Ack)
	}
	c := call{reply: textReply{r.ID}, channel: r.Channel, body: r.Body, contentType: contentTypeJSON}
	c.endpoint, c.allowed = v.named(endpoint{r.Service, r.Method, r.Path})
	return v.ask(c)
}

// acknowledge settles events. An acknowledgement that acknowledges nothing is paid for like a call.
func (v *session) acknowledge(sequence uint32) error {
	if v.pending.acknowledge(sequence) > 0 {
		return nil
	}
	_, err := v.pay()
	return err
}

// pay takes a message off the client's rate.
func (v *session) pay() (ok bool, err error) {
	ok, flood := v.rate.take(time.Now(), v.s.cfg.Rate, v.s.cfg.Burst)
	if flood {
		return false, errFlood
	}
	return ok, nil
}

// byGUID finds the endpoint of a binary frame in the manifest that holds now.
func (v *session) byGUID(r Request) (e endpoint, allowed bool) {
	if m := v.manifest.Load(); m != nil {
		e, allowed = m.byGUID[r.Endpoint]
	}
	return e, allowed
}

// named finds that of a text frame.
func (v *session) named(e endpoint) (endpoint, bool) {
	m := v.manifest.Load()
	if m == nil {
		return e, false
	}
	at, allowed := m.byGUID[guid(v.record.Salt, e)]
	return e, allowed && at == e
}

// ask makes a call, or answers why not.
func (v *session) ask(c call) error {
	ok, err := v.pay()
	if err != nil {
		return err
	}
	switch {
	case !ok:
		v.refuse(c, problem.New(problem.TooManyRequests, "the session sends more than %d messages a second; this one was not looked at", v.s.cfg.Rate), "rate")
	case !c.allowed:
		v.refuse(c, problem.New(problem.Forbidden, "the session may not call this endpoint: it is not in its manifest"), "forbidden")
	default:
		if p, limit := v.calls.start(v, c); p != nil {
			v.refuse(c, p, limit)
		}
	}
	return nil
}

// refuse answers a call that is not made.
func (v *session) refuse(c call, p *problem.Problem, reason string) {
	v.s.meter.refused(v.life, reason)
	_ = v.put(c.reply.frame(answerOf(p)))
}

const (
	contentTypeJSON   = "application/json"
	contentTypeBinary = "application/octet-stream"
)

func contentType(flags byte) string {
	if flags&FlagBinary != 0 {
		return contentTypeBinary
	}
	return contentTypeJSON
}

// An answer is what comes of a call.
type answer struct {
	status int
	code   problem.Code // of a problem of the gateway's; "" where a service answers
	body   []byte
	json   bool
}

func answerOf(p *problem.Problem) answer {
	return answer{status: p.Status, code: p.Code, body: encode(p), json: true}
}

// A reply makes the frame that answers a call.
type reply interface {
	frame(a answer) outFrame
}

type binaryReply struct{ r Request }

func (b binaryReply) frame(a answer) outFrame {
	response := Response{Channel: b.r.Channel, Sequence: b.r.Sequence, MessageID: b.r.MessageID, Code: codeOf(a.status), Payload: a.body}
	if !a.json {
		response.Flags = FlagBinary
	}
	return outFrame{kind: websocket.BinaryMessage, data: response.Append(make([]byte, 0, ResponseHeaderBytes+len(a.body)))}
}

type textReply struct{ id []byte }

func (t textReply) frame(a answer) outFrame {
	response := textResponse{ID: t.id, Status: a.status, Code: string(a.code), Body: asJSON(a.body)}
	if a.code == "" && a.status >= http.StatusBadRequest {
		response.Code = problemCode(a.body)
	}
	return outFrame{kind: websocket.TextMessage, data: encode(response)}
}
