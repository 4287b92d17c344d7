package artifact

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// checkPrefixKey is where Check writes. It is an ordinary key, so that a policy on the store's prefix covers it.
const checkPrefixKey = "check"

// checkStore implements Store.Check by doing once all that a run will do.
func checkStore(ctx context.Context, s Store) (err error) {
	for _, err := range s.List(ctx, checkPrefixKey) {
		if err != nil {
			return err
		}
		break
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	key := checkPrefixKey + "/" + hex.EncodeToString(id[:])
	defer func() { err = errors.Join(err, s.Delete(context.WithoutCancel(ctx), key)) }()
	ref, err := s.PutIfAbsent(ctx, key, []byte("1"))
	if err != nil {
		return err
	}
	if _, err := s.PutIfAbsent(ctx, key, []byte("2")); !errors.Is(err, ErrExists) {
		if err == nil {
			err = &Error{Op: "check", URI: ref.URI, Err: ErrDenied,
				Detail: "the store overwrote an object despite If-None-Match: *; use one that supports conditional writes"}
		}
		return err
	}
	body, got, err := s.Get(ctx, key, 1)
	if err == nil && (string(body) != "1" || got != ref) {
		err = &Error{Op: "check", URI: ref.URI, Err: ErrCorrupt, Detail: "the store returned other bytes than were written"}
	}
	return err
}

// compare decides a lost PutIfAbsent: what stands under key may be our own bytes, from a request whose answer was lost.
func compare(ctx context.Context, s Store, uri, key string, body []byte) (Ref, error) {
	old, ref, err := s.Get(ctx, key, int64(len(body)))
	switch {
	case errors.Is(err, ErrCorrupt) || err == nil && !bytes.Equal(old, body):
		return Ref{}, &Error{Op: "put", URI: uri, Err: ErrExists}
	case errors.Is(err, ErrNotFound): // deleted in between, or its writer was turned away as well
		return Ref{}, &Error{Op: "put", URI: uri, Err: ErrUnavailable, Detail: "a concurrent write or delete; try again"}
	}
	return ref, err
}
