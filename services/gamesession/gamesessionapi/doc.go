// Package gamesessionapi is the game-session service as its openapi.yaml describes it: requests, answers, the server's
// stub and a client, all generated.
package gamesessionapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
