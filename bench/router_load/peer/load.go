package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	channels = 4
	warmUp   = time.Second
	timeout  = 60 * time.Second
)

type figures struct {
	Requests  int     `json:"requests"`
	Failed    int     `json:"failed"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// load is a closed loop: so many clients, each asks, waits for its image, and asks again; `rate` requests a second
// in all, 0: as many as there can be. What is told is the time beyond the worker's own.
//
// With imageOnly they ask for no events besides.
func load(addresses string, clients int, rate, seconds float64, imageOnly bool) {
	targets := strings.Split(addresses, ",")
	connections := make([]*grpc.ClientConn, channels)
	for i := range connections {
		connection, err := grpc.NewClient(
			targets[i%len(targets)],
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(mostBytes)),
		)
		if err != nil {
			fail(err)
		}
		connections[i] = connection
	}
	began := time.Now()
	warm := began.Add(warmUp)
	end := warm.Add(time.Duration(seconds * float64(time.Second)))
	var mutex sync.Mutex
	var overheads []float64
	failed := 0
	var group sync.WaitGroup
	for number := range clients {
		group.Go(func() {
			var gap time.Duration
			if rate > 0 {
				gap = time.Duration(float64(clients) / rate * float64(time.Second))
			}
			due := began.Add(gap * time.Duration(number) / time.Duration(clients))
			for asked := 0; time.Now().Before(end); asked++ {
				if rate > 0 {
					time.Sleep(time.Until(due))
					due = due.Add(gap)
					if now := time.Now(); due.Before(now) {
						due = now
					}
				}
				sent := time.Now()
				own, err := ask(connections[number%channels], fmt.Sprintf("prompt %d %d", number, asked), imageOnly)
				took := time.Since(sent).Seconds() - own
				mutex.Lock()
				if err != nil {
					failed++
				} else if !sent.Before(warm) {
					overheads = append(overheads, took*1000)
				}
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	elapsed := time.Since(warm).Seconds()
	sort.Float64s(overheads)
	share := func(part float64) float64 {
		if len(overheads) == 0 {
			return 0
		}
		return overheads[min(len(overheads)-1, int(part*float64(len(overheads))))]
	}
	tell(figures{len(overheads), failed, float64(len(overheads)) / elapsed, share(0.5), share(0.99)})
}

var generate = &grpc.StreamDesc{StreamName: "Generate", ServerStreams: true}

// ask gives the seconds that the worker took for a prompt's image.
func ask(connection *grpc.ClientConn, prompt string, imageOnly bool) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := connection.NewStream(ctx, generate, "/gesso.v1.ImageService/Generate")
	if err != nil {
		return 0, err
	}
	request := count(message(nil, 2, []byte(prompt)), 6, 1)
	if imageOnly {
		request = count(request, 12, 1)
	}
	if err := stream.SendMsg(&request); err != nil {
		return 0, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	own := math.NaN()
	for {
		var event []byte
		err := stream.RecvMsg(&event)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if image := field(event, 5); image != nil {
			if data := field(image, 1); len(data) >= 8 {
				own = math.Float64frombits(binary.LittleEndian.Uint64(data))
			}
		}
	}
	if math.IsNaN(own) {
		return 0, errors.New("the stream ended without an image")
	}
	return own, nil
}
