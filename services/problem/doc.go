// Package problem is how a service says no: application/problem+json as in RFC 9457, with a code to program against.
//
// Handlers return a *Problem as their error. It carries one of a closed set of codes, each with one HTTP status, a
// sentence that says what was asked and what to do, and the member of the body that is at fault. Write turns an error
// into the answer; an error that is no Problem is answered as internal, without its text, and logged.
//
//	code                  status  meaning
//	invalid_json          400     the body is not one JSON object in valid UTF-8
//	invalid_member        400     a member has the wrong type or a value that is not allowed
//	missing_member        400     a required member is absent, null or empty
//	body_too_large        413     the body is over the limit of the endpoint
//	value_too_large       413     a value is over the limit of the store
//	key_too_long          400     a key is over 255 bytes
//	unknown_store         404     no store of that name is configured
//	unknown_operator      400     a filter uses an operator that does not exist
//	unsupported           400     known, but not here: the backend or this node cannot do it
//	callback_not_allowed  403     the callback is at an address that this node may not call
//	host_not_allowed      403     the endpoint is at an address that this node may not call
//	cross_origin          403     a browser sent it from a page of another origin
//	unauthorized          401     only apps may do this, and the request has no token of one; see WWW-Authenticate
//	forbidden             403     the app whose token it has may not do this
//	not_found             404     no such path, key, subscription, endpoint or version
//	unknown_target        404     no app-id and no service of that name is known to the mesh
//	method_not_allowed    405     the path exists for another method
//	conflict              409     a condition (an etag, a version) did not hold; read again, then decide
//	too_many_requests     429     too many tries of one account or from one address; Retry-After says when to try again
//	misdirected           421     it is for another app-id or another mesh than this node's; nothing was done, try another instance
//	unroutable            422     mandatory, and no queue would receive the event
//	bad_gateway           502     the instance that was called could not be reached, or broke off
//	no_endpoint           503     no instance of the app-id can take the call now
//	circuit_open          503     every instance of the app-id fails, and calls of it end at once for a moment
//	overloaded            503     as many calls of the app-id are under way as its bulkhead lets in
//	unavailable           503     what the service depends on is away, nothing was done; Retry-After says when to try
//	outcome_unknown       504     sent, and no answer came: it may or may not have been done
//	timeout               504     the time allowed was over before anything was sent
//	loop_detected         508     the call went through more nodes than allowed
//	internal              500     a fault of the node; its log has the rest under the request's id
package problem
