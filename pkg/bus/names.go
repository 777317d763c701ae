package bus

import (
	"fmt"
	"strings"
)

// maxNameBytes is what AMQP allows for a routing key, a queue's name and the short properties.
const maxNameBytes = 255

// CheckTopic reports, as ErrInvalid, what is no topic: it has dotted lower-case words of letters, digits, "-" and "_", at most 255 bytes,
// and is not the name of the dead-letter store. With patterns, a word may also be "*" or "#". Routing keys are held to the same.
func (b *Bus) CheckTopic(topic string, patterns bool) error {
	if err := checkTopic(topic, patterns); err != nil {
		return err
	}
	return b.cfg.checkFree(topic)
}

// checkTopic accepts dotted lower-case words of letters, digits, "-" and "_"; with patterns, a word may also be "*" or
// "#".
func checkTopic(topic string, patterns bool) error {
	if topic == "" {
		return fmt.Errorf("%w: the topic is empty", ErrInvalid)
	}
	if len(topic) > maxNameBytes {
		return fmt.Errorf("%w: the topic has %d bytes, at most %d are allowed", ErrInvalid, len(topic), maxNameBytes)
	}
	for word := range strings.SplitSeq(topic, ".") {
		if word == "*" || word == "#" {
			if patterns {
				continue
			}
			return fmt.Errorf("%w: topic %q is a pattern; patterns are for subscriptions", ErrInvalid, topic)
		}
		if !isWord(word) {
			return fmt.Errorf("%w: topic %q must be words of a-z, 0-9, - and _ with dots between them", ErrInvalid, topic)
		}
	}
	return nil
}

func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// storeSuffix follows the name of the dead-letter exchange in that of the store, on every broker.
const storeSuffix = "-store"

// checkFree refuses a topic that is a name of the bus's own: on Redis a topic is a key, and the store is one too.
func (c Config) checkFree(topic string) error {
	if topic == c.DeadLetterExchange+storeSuffix {
		return fmt.Errorf("%w: topic %q is the name of the dead-letter store; read it as dead letters", ErrInvalid, topic)
	}
	return nil
}

// checkFreeQueue refuses the queue of dead letters, those beside it, and what AMQP keeps for brokers.
func (c Config) checkFreeQueue(name string) error {
	store := c.DeadLetterExchange + storeSuffix
	if name == store || strings.HasPrefix(name, store+".") {
		return fmt.Errorf("%w: queue %q is the bus's own, for dead letters; read it as dead letters", ErrInvalid, name)
	}
	if strings.HasPrefix(name, "amq.") {
		return fmt.Errorf("%w: queue %q begins with amq. as the broker's own do; choose another", ErrInvalid, name)
	}
	return nil
}

// checkName accepts what may name a handler, a group, a queue or an exchange: printable ASCII without spaces and braces,
// which set the names apart that drivers write keys with.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("%w: the %s has no name", ErrInvalid, what)
	}
	if len(name) > maxNameBytes {
		return fmt.Errorf("%w: the name of the %s has %d bytes, at most %d are allowed: choose a shorter group",
			ErrInvalid, what, len(name), maxNameBytes)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return fmt.Errorf("%w: %s name %q must be printable ASCII without spaces", ErrInvalid, what, name)
		}
		if name[i] == '{' || name[i] == '}' {
			return fmt.Errorf("%w: %s name %q must be without braces", ErrInvalid, what, name)
		}
	}
	return nil
}

// checkShort accepts what fits an AMQP short string.
func checkShort(what, s string) error {
	if len(s) > maxNameBytes {
		return fmt.Errorf("%w: the %s has %d bytes, at most %d are allowed", ErrInvalid, what, len(s), maxNameBytes)
	}
	return nil
}
