// Command pion is a receiver of the usual Go kind, to measure beside ours: a goroutine per track,
// ReadRTP, then libopus straight to 16 kHz mono. Nothing else is done with the audio.
package main

// #cgo pkg-config: opus
// #include <opus.h>
import "C"

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc" // version 3: Debian's GOPATH has it without the /v3
)

const (
	rate       = 16_000
	maxSamples = rate * 120 / 1000 // an Opus packet lasts 120 ms at most
)

type server struct {
	api   *webrtc.API
	heard atomic.Int64 // in samples

	mu    sync.Mutex
	count int
	peers map[string]*webrtc.PeerConnection // by location
}

func main() {
	port := flag.Int("port", 8090, "where to listen on 127.0.0.1")
	flag.Parse()
	api, err := newAPI()
	if err != nil {
		log.Fatal(err)
	}
	s := &server{api: api, peers: map[string]*webrtc.PeerConnection{}}
	http.HandleFunc("/whip/", s.whip)
	http.HandleFunc("/metrics", s.metrics)
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil))
}

// newAPI has pion's default codecs and interceptors, on loopback alone.
func newAPI() (*webrtc.API, error) {
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	interceptors := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(media, interceptors); err != nil {
		return nil, err
	}
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetIPFilter(net.IP.IsLoopback)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	// on by default, and one more socket for every peer
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	return webrtc.NewAPI(
		webrtc.WithMediaEngine(media),
		webrtc.WithInterceptorRegistry(interceptors),
		webrtc.WithSettingEngine(settings),
	), nil
}

func (s *server) whip(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		s.join(w, r)
	case http.MethodDelete:
		s.leave(w, r)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s *server) join(w http.ResponseWriter, r *http.Request) {
	offer, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	peer, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { s.listen(track) })
	answer, err := answerTo(peer, string(offer))
	if err != nil {
		peer.Close()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("Location", s.keep(peer, r.URL.Path))
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, answer)
}

// answerTo returns an answer that holds every candidate.
func answerTo(peer *webrtc.PeerConnection, offer string) (string, error) {
	description := webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}
	if err := peer.SetRemoteDescription(description); err != nil {
		return "", err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return peer.LocalDescription().SDP, nil
}

func (s *server) keep(peer *webrtc.PeerConnection, room string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	location := fmt.Sprintf("%s/%d", strings.TrimSuffix(room, "/"), s.count)
	s.count++
	s.peers[location] = peer
	return location
}

func (s *server) leave(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	peer, found := s.peers[r.URL.Path]
	delete(s.peers, r.URL.Path)
	s.mu.Unlock()
	if !found {
		http.NotFound(w, r)
		return
	}
	peer.Close()
}

// listen decodes until the track ends; pion calls it in a goroutine of the track's own.
func (s *server) listen(track *webrtc.TrackRemote) {
	if track.Codec().MimeType != webrtc.MimeTypeOpus {
		return
	}
	var status C.int
	decoder := C.opus_decoder_create(rate, 1, &status)
	if status != C.OPUS_OK {
		log.Printf("libopus gave no decoder: %d", status)
		return
	}
	defer C.opus_decoder_destroy(decoder)
	pcm := make([]float32, maxSamples)
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if len(packet.Payload) == 0 {
			continue
		}
		samples := C.opus_decode_float(
			decoder,
			(*C.uchar)(unsafe.Pointer(&packet.Payload[0])), C.opus_int32(len(packet.Payload)),
			(*C.float)(unsafe.Pointer(&pcm[0])), maxSamples, 0,
		)
		if samples > 0 { // below: libopus could not read the packet
			s.heard.Add(int64(samples))
		}
	}
}

func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "# TYPE roomscribe_audio_seconds_total counter")
	heardS := float64(s.heard.Load()) / rate
	fmt.Fprintf(w, "roomscribe_audio_seconds_total{fate=\"heard\"} %g\n", heardS)
}
