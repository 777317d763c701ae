package rabbitbus

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

// declareStore declares the dead-letter store, on a channel of its own, which a refusal ends. A store that exists with
// other arguments, of an earlier version or an operator's, is taken as it is: letters are in it.
func (t *topology) declareStore(s *session) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	err = t.declareNamed(s, ch, t.storeName(), declaration{durable: true, args: t.storeArgs()})
	if err == nil {
		return ch.Close()
	}
	if !answered(err, amqp.PreconditionFailed) {
		return err
	}
	t.storeWarning.Do(func() {
		t.cfg.Logger.Warn("the dead-letter store exists with other settings and is used as it is; to have the present ones, "+
			"empty it, delete it and connect again", "queue", t.storeName(), "error", err)
	})
	return nil
}
