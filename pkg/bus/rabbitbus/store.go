package rabbitbus

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

// storeName is the queue that keeps dead letters.
func (t *topology) storeName() string { return t.cfg.DeadLetterExchange + "-store" }

// readerName is the exclusive queue of the one who reads the store.
func (t *topology) readerName() string { return t.storeName() + ".reader" }

// droppedName is the queue that the store's limits drop to, for counting.
func (t *topology) droppedName() string { return t.storeName() + ".dropped" }

// storeArgs are the arguments of the dead-letter store.
func (t *topology) storeArgs() amqp.Table {
	args := amqp.Table{
		amqp.QueueMaxLenArg:         int64(storeMaxLength),
		amqp.QueueMessageTTLArg:     storeTTL.Milliseconds(),
		amqp.QueueTypeArg:           string(t.cfg.QueueType),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": t.droppedName(),
	}
	if t.cfg.QueueType == Quorum {
		args["x-delivery-limit"] = int64(noDeliveryLimit) // each reading delivers every letter and gives it back
	}
	return args
}

// droppedArgs bound what waits to be counted while no node is there to count.
func (t *topology) droppedArgs() amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg:       string(t.cfg.QueueType),
		amqp.QueueMaxLenArg:     int64(droppedMaxLength),
		amqp.QueueMessageTTLArg: droppedTTL.Milliseconds(),
	}
}

// declareStore declares the dead-letter store, on a channel of its own, which a refusal ends. A store that exists with
// other arguments, of an earlier version or an operator's, is taken as it is: letters are in it. What such a one drops is not counted.
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
