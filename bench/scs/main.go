// Measures scs/memstore as measure.ts does the other stores, and prints the same figures: main <part> <sessions>.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2/memstore"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func randomText(bytes int) string {
	data := make([]byte, bytes)
	_, err := rand.Read(data)
	check(err)
	return base64.RawURLEncoding.EncodeToString(data)
}

func newToken() string { return randomText(32) }

func newData() []byte { return []byte(randomText(192)) }

// Nanoseconds an operation.
func each(count int, operation func(i int)) float64 {
	runtime.GC()
	begin := time.Now()
	for i := 0; i < count; i++ {
		operation(i)
	}
	return float64(time.Since(begin).Nanoseconds()) / float64(count)
}

func millis(duration time.Duration) float64 { return float64(duration.Nanoseconds()) / 1e6 }

func operations(sessions int) map[string]float64 {
	tokens := make([]string, sessions)
	data := make([][]byte, sessions)
	for i := range tokens {
		tokens[i], data[i] = newToken(), newData()
	}
	count := sessions * 20
	if count > 100_000 {
		count = 100_000
	}
	asked := make([]string, count)
	unknown := make([]string, count)
	order := mathrand.Perm(sessions)
	for i := range asked {
		asked[i], unknown[i] = strings.Clone(tokens[order[i%sessions]]), newToken()
	}
	expiry := time.Now().Add(24 * time.Hour)
	store := memstore.NewWithCleanupInterval(0)
	find := func(token string, expected bool) {
		_, found, err := store.Find(token)
		check(err)
		if found != expected {
			panic("a find went wrong")
		}
	}

	// A small store is filled several times, so that there is something to measure.
	fills := (count + sessions - 1) / sessions
	commit := 0.0
	for fill := 0; fill < fills; fill++ {
		store = memstore.NewWithCleanupInterval(0)
		commit += each(sessions, func(i int) { check(store.Commit(tokens[i], data[i], expiry)) })
	}
	figures := map[string]float64{"commit": commit / float64(fills)}
	figures["find"] = each(count, func(i int) { find(asked[i], true) })
	figures["miss"] = each(count, func(i int) { find(unknown[i], false) })
	figures["overwrite"] = each(count, func(i int) { check(store.Commit(asked[i], data[i%sessions], expiry)) })
	begin := time.Now()
	all, err := store.All()
	check(err)
	if len(all) != sessions {
		panic("all returned too few")
	}
	figures["all"] = millis(time.Since(begin))
	deletes := count
	if deletes > sessions {
		deletes = sessions
	}
	figures["delete"] = each(deletes, func(i int) { check(store.Delete(asked[i])) })
	return figures
}

func resident() (heap, rss float64) {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		pages, err := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
		check(err)
		rss = pages * float64(os.Getpagesize())
	}
	return float64(stats.HeapAlloc), rss
}

// Goroutines have no event loop to hold up, but a sweep holds the lock: how long did a find wait for it?
func cleanup(sessions, expiredPercent int) map[string]float64 {
	interval := 2*time.Second + time.Duration(sessions)*10*time.Microsecond
	heapBefore, rssBefore := resident()
	store := memstore.NewWithCleanupInterval(interval)
	swept := time.Now().Add(interval)
	for i := 0; i < sessions; i++ {
		expiry := time.Now().Add(24 * time.Hour)
		if i%100 < expiredPercent {
			expiry = time.Now().Add(-time.Hour)
		}
		check(store.Commit(newToken(), newData(), expiry))
	}
	token := newToken()
	check(store.Commit(token, newData(), time.Now().Add(24*time.Hour)))
	heap, rss := resident()
	if time.Now().After(swept.Add(-time.Second)) {
		panic("the sweep began before it was watched")
	}

	watch := func(until time.Time) []float64 {
		waits := []float64{}
		for time.Now().Before(until) {
			begin := time.Now()
			_, found, err := store.Find(token)
			check(err)
			if !found {
				panic("an active session was not found")
			}
			waits = append(waits, millis(time.Since(begin)))
			time.Sleep(10 * time.Microsecond)
		}
		sort.Float64s(waits)
		return waits
	}
	idle := watch(swept.Add(-100 * time.Millisecond))
	sweep := watch(swept.Add(time.Second))
	figures := map[string]float64{
		"heap":       (heap - heapBefore) / float64(sessions),
		"sweepStall": sweep[len(sweep)-1],
		"idleStall":  idle[len(idle)-1],
	}
	if rss > 0 {
		figures["resident"] = (rss - rssBefore) / float64(sessions)
	}
	return figures
}

func main() {
	sessions, err := strconv.Atoi(os.Args[2])
	check(err)
	var figures map[string]float64
	switch os.Args[1] {
	case "operations":
		figures = operations(sessions)
	case "cleanup50":
		figures = cleanup(sessions, 50)
	default:
		figures = cleanup(sessions, 1)
	}
	output, err := json.Marshal(figures)
	check(err)
	fmt.Println(string(output))
}
