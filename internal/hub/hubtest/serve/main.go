// Command serve runs a hub on this machine, for tests and for trying a recipe that names hf:// repositories.
//
//	go run ./internal/hub/hubtest/serve -dir /tmp/hub -sms SMSSpamCollection -distilbert ~/models/bert-tokenizer
//
// It prints one line, HF_ENDPOINT=http://127.0.0.1:PORT, and serves until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/duratune/duratune/internal/hub/hubtest"
)

// options are the flags.
type options struct {
	dir, addr, sms, tokenizer string
	base                      bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder with models/ and datasets/: owner/name/revision/files (required)")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:0", "address of the hub")
	flag.StringVar(&o.sms, "sms", "", "file of the SMS Spam Collection, to be served as "+hubtest.SMSSpam)
	flag.StringVar(&o.tokenizer, "distilbert", "", "folder with tokenizer.json and vocab.txt, to be served with random weights as "+hubtest.DistilBERT)
	flag.BoolVar(&o.base, "base-size", false, "make these weights as large as the real ones (255 MB) rather than tiny (8 MB)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

// run makes what is asked for and serves until ctx is done.
func run(ctx context.Context, o options) error {
	if o.dir == "" {
		return errors.New("-dir is missing")
	}
	if o.sms != "" {
		if err := hubtest.WriteSMSSpam(o.dir, o.sms); err != nil {
			return err
		}
	}
	if o.tokenizer != "" {
		size := hubtest.TinySize
		if o.base {
			size = hubtest.BaseSize
		}
		if err := hubtest.WriteDistilBERT(o.dir, o.tokenizer, size, 1); err != nil {
			return err
		}
	}
	storage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	api, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	h := hubtest.New(o.dir, hubtest.StorageURL(storage.Addr()))
	servers := []*http.Server{{Handler: h.Storage(), ReadHeaderTimeout: 10 * time.Second}, {Handler: h.API(), ReadHeaderTimeout: 10 * time.Second}}
	failed := make(chan error, len(servers))
	for i, l := range []net.Listener{storage, api} {
		go func() { failed <- servers[i].Serve(l) }()
	}
	fmt.Printf("HF_ENDPOINT=http://%s\n", api.Addr())
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	for _, s := range servers {
		_ = s.Close()
	}
	return err
}
