package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	steps = 50
	// progressSteps between two progress events, where the router does not say: as a real worker does.
	progressSteps = 10
	// maxBatch that the profile is measured for.
	maxBatch = 64
)

// worker takes `seconds` for each image, so many at once as it has slots, and says how long it really took.
type worker struct {
	name      string
	seconds   float64
	padding   []byte
	slots     chan struct{}
	placement string

	mutex  sync.Mutex
	active map[string]struct{}
}

func serve(count int, seconds float64, imageBytes, slots int, placement string) {
	addresses := make([]string, count)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fail(err)
		}
		w := &worker{
			name:      fmt.Sprintf("worker-%d", i),
			seconds:   seconds,
			padding:   make([]byte, max(0, imageBytes-8)),
			slots:     make(chan struct{}, slots),
			placement: placement,
			active:    map[string]struct{}{},
		}
		rand.Read(w.padding)
		server := grpc.NewServer(
			grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(mostBytes), grpc.UnknownServiceHandler(w.handle),
		)
		go server.Serve(listener)
		addresses[i] = listener.Addr().String()
	}
	tell(map[string]any{"addresses": addresses})
	io.Copy(io.Discard, os.Stdin)
}

func (w *worker) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if method == "/bench.Worker/Serve" {
		return w.serveMany(stream)
	}
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	send := func(message []byte) error { return stream.SendMsg(&message) }
	switch method[strings.LastIndex(method, "/")+1:] {
	case "Generate":
		every := int(varint(request, 18))
		if every == 0 {
			every = progressSteps
		}
		return w.generate(string(field(request, 1)), every, stream.Context(), send)
	case "Lookup":
		return send(w.lookup(request))
	case "Stats":
		return send(w.stats())
	}
	return status.Error(codes.Unimplemented, method)
}

// generate answers with worker.proto's WorkerEvent: started, progress, image, whose data begins with the seconds
// that it took. As of a real worker, there is no word of the last step.
func (w *worker) generate(id string, every int, ctx context.Context, send func([]byte) error) error {
	began := time.Now()
	w.mutex.Lock()
	w.active[id] = struct{}{}
	w.mutex.Unlock()
	defer func() {
		w.mutex.Lock()
		delete(w.active, id)
		w.mutex.Unlock()
	}()
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := send(message(nil, 1, message(nil, 1, []byte(w.name)))); err != nil {
		return err
	}
	step := func(count int) { time.Sleep(time.Duration(w.seconds * float64(count) / steps * float64(time.Second))) }
	done := 0
	for ; done+every < steps; done += every {
		step(every)
		progress := count(count(nil, 1, uint64(done+every)), 2, steps)
		if err := send(message(nil, 2, progress)); err != nil {
			return err
		}
	}
	step(steps - done)
	data := make([]byte, 8, 8+len(w.padding))
	binary.LittleEndian.PutUint64(data, math.Float64bits(time.Since(began).Seconds()))
	image := message(nil, 1, append(data, w.padding...))
	image = count(count(count(image, 2, 1), 3, 1024), 4, 1024)
	return send(message(nil, 3, image))
}

// serveMany takes many requests in one call, by forwarders.py: each is a WorkerGenerateRequest, or has a LookupRequest
// as field 90. There is one answer to each, the last of what `generate` tells, which has the request's id as field 90.
func (w *worker) serveMany(stream grpc.ServerStream) error {
	var mutex sync.Mutex
	for {
		var request []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		go func() {
			id := field(request, 1)
			var answer []byte
			if query := field(request, 90); query != nil {
				answer = w.lookup(query)
			} else {
				keep := func(event []byte) error { answer = event; return nil }
				if w.generate(string(id), steps, stream.Context(), keep) != nil {
					return
				}
			}
			answer = message(answer, 90, id)
			mutex.Lock()
			defer mutex.Unlock()
			stream.SendMsg(&answer)
		}()
	}
}

// lookup answers each query with two entries that are not near enough to be of use.
func (w *worker) lookup(request []byte) []byte {
	var answers []byte
	for _, query := range fields(request, 1) {
		var entries []byte
		for i := range 2 {
			match := message(nil, 1, fmt.Appendf(nil, "%s-%d", w.name, i))
			match = double(match, 2, 0.4)
			match = message(match, 3, []byte{5, 10})
			match = message(match, 4, field(query, 2))
			entries = message(entries, 1, match)
		}
		answers = message(answers, 1, entries)
	}
	return answers
}

func (w *worker) stats() []byte {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	seconds := make([]byte, 0, 8*maxBatch)
	for range maxBatch {
		seconds = protowire.AppendFixed64(seconds, math.Float64bits(w.seconds/steps))
	}
	profile := message(nil, 1, []byte("fixed"))
	profile = count(profile, 2, steps)
	profile = message(profile, 5, seconds)
	answer := count(message(nil, 1, []byte(w.name)), 2, 1)
	answer = message(answer, 6, profile)
	for id := range w.active {
		answer = message(answer, 7, count(message(nil, 1, []byte(id)), 2, steps/2))
	}
	answer = message(answer, 13, []byte("bench"))
	if w.placement != "" {
		answer = message(answer, 23, []byte(w.placement))
	}
	return answer
}
