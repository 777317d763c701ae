package sagas

// SetBehind sets how many positions an instance lies back before it is written anew.
func (e *Engine) SetBehind(positions int64) { e.behind = positions }
