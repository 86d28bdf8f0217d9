// Publishes to, or consumes from, a JetStream stream as fast as nats.go can, and prints the rate.
//
//	nats_go publish URL SUBJECT COUNT SIZE
//	nats_go consume URL STREAM DURABLE COUNT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	unconfirmed = 4000
	ahead       = 2000
	patience    = 2 * time.Minute
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 6 {
		log.Fatal("publish URL SUBJECT COUNT SIZE, or consume URL STREAM DURABLE COUNT")
	}
	connection, err := nats.Connect(os.Args[2])
	check(err)
	defer connection.Close()
	stream, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(unconfirmed))
	check(err)
	var count int
	began := time.Now()
	switch os.Args[1] {
	case "publish":
		count = number(os.Args[4])
		publish(stream, os.Args[3], count, make([]byte, number(os.Args[5])))
	case "consume":
		count = number(os.Args[5])
		began = consume(stream, os.Args[3], os.Args[4], count)
		check(connection.Flush())
	default:
		log.Fatalf("neither publish nor consume: %s", os.Args[1])
	}
	fmt.Printf("%.1f messages/s\n", float64(count)/time.Since(began).Seconds())
}

func publish(stream jetstream.JetStream, subject string, count int, body []byte) {
	stored := make([]jetstream.PubAckFuture, 0, count)
	for range count {
		future, err := stream.PublishAsync(subject, body, jetstream.WithStallWait(patience))
		check(err)
		stored = append(stored, future)
	}
	select {
	case <-stream.PublishAsyncComplete():
	case <-time.After(patience):
		log.Fatal("not confirmed in time")
	}
	for _, future := range stored {
		select {
		case err := <-future.Err():
			check(err)
		case <-future.Ok():
		}
	}
}

// consume returns when the first message came.
func consume(stream jetstream.JetStream, name, durable string, count int) time.Time {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	consumer, err := stream.Consumer(ctx, name, durable)
	check(err)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(ahead))
	check(err)
	defer messages.Stop()
	stop := time.AfterFunc(patience, messages.Stop)
	defer stop.Stop()
	var first time.Time
	for handled := range count {
		message, err := messages.Next()
		check(err)
		if handled == 0 {
			first = time.Now()
		}
		check(message.Ack())
	}
	return first
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
