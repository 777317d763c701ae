// Package jsonbody lets a request through to its decoder only when its body is what every endpoint here takes: one JSON
// object, strictly.
//
// Strictly means: within the endpoint's limit of bytes, nested no deeper than allowed, valid UTF-8, no member named
// twice in one object, nothing after the object. An empty body is read as {}: a request without options needs none,
// and one that lacks a required member is told which. Everything else is a problem (body_too_large, invalid_json) that
// says the line and column. The decoder behind it then fails only on members of the wrong type, which DecodeError turns
// into invalid_member with the member's path.
//
// Middleware is for generated servers, which decode by themselves. Decode does all of it at once, for less: it takes a
// fast way where a body leaves no doubt, and the same way as Middleware otherwise. Write is for the answers.
package jsonbody
