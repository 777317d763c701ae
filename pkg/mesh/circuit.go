package mesh

// A CircuitChange is what a client makes of one instance from now on: its ejection, in the words of a circuit breaker.
type CircuitChange struct {
	AppID, InstanceID string
	Previous, State   BreakerState
	Reason            string // a sentence for people
}

func (p *pool) circuitOf(in *Instance, previous, state BreakerState, reason string) {
	if p.circuits != nil {
		p.circuits(CircuitChange{AppID: p.appID, InstanceID: in.id, Previous: previous, State: state, Reason: reason})
	}
}
