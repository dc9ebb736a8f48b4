// SPDX-License-Identifier: Apache-2.0
//
// Another engine, run by compare.py next to hrnn. A peer is a program of its own that answers each line of its standard
// input with a line of JSON:
//   version            what it is: {"version": "..."}
//   open FOLDER        makes the layer that lies there (problem.json and arrays of plain floats: w, r, b, x, with
//   ONNX's
//                      layouts), runs it from zeros and writes y: {}, or {"refused": "why it cannot do this layer"}
//   burst              measures it once: {"us": microseconds a step}
#pragma once
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "burst.h"

namespace peer {

// What problem.json says.
struct Layer {
  std::string folder, cell;
  int64_t input, hidden, batch, time, directions, layers, gates;
  int threads;
  double steps;
  bool reverse, streaming, ragged;
  std::vector<float> w, r, b, x;  // of one layer after the other

  explicit Layer(const std::string &where) : folder(where) {
    const auto json = nlohmann::json::parse(std::ifstream(where + "/problem.json"));
    cell = json.at("cell"), reverse = json.at("reverse"), streaming = json.at("streaming"), steps = json.at("steps");
    input = json.at("input"), hidden = json.at("hidden"), batch = json.at("batch"), time = json.at("time");
    directions = json.at("directions"), layers = json.at("layers"), threads = json.at("threads");
    ragged = !json.at("lengths").empty();
    gates = cell == "rnn" ? 1 : 3;
    w = read("w"), r = read("r"), b = read("b"), x = read("x");
  }

  int64_t layer_input(int64_t layer) const { return layer == 0 ? input : directions * hidden; }
  size_t state_values() const { return size_t(layers * directions * batch * hidden); }
  size_t y_values() const { return size_t(time * directions * batch * hidden); }

 private:
  std::vector<float> read(const char *name) const {
    std::ifstream file(folder + "/" + name, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read " + folder + "/" + name);
    std::vector<float> values(size_t(file.tellg()) / sizeof(float));
    file.seekg(0).read(reinterpret_cast<char *>(values.data()), std::streamsize(values.size() * sizeof(float)));
    return values;
  }
};

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The layer, ready to run. Streaming keeps the state from run to run.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual void run() = 0;
  // After the first run: [time, directions, batch, hidden] or, streaming, all layers' states.
  virtual std::vector<float> output() = 0;
};

// [time, batch, directions * hidden] as [time, directions, batch, hidden].
inline std::vector<float> by_direction(const float *y, const Layer &l) {
  std::vector<float> result(l.y_values());
  for (int64_t t = 0, at = 0; t < l.time; t++)
    for (int64_t d = 0; d < l.directions; d++)
      for (int64_t n = 0; n < l.batch; n++)
        for (int64_t h = 0; h < l.hidden; h++)
          result[size_t(at++)] = y[((t * l.batch + n) * l.directions + d) * l.hidden + h];
  return result;
}

using Open = std::unique_ptr<Engine> (*)(const Layer &);

inline void serve(const std::string &version, Open open) {
  std::unique_ptr<Layer> layer;
  std::unique_ptr<Engine> engine;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, folder;
    words >> command >> folder;
    nlohmann::json answer = nlohmann::json::object();
    if (command == "version") {
      answer["version"] = version;
    } else if (command == "open") {
      engine.reset();
      layer = std::make_unique<Layer>(folder);
      try {
        engine = open(*layer);
        engine->run();
        const std::vector<float> y = engine->output();
        std::ofstream(folder + "/y", std::ios::binary)
            .write(reinterpret_cast<const char *>(y.data()), std::streamsize(y.size() * sizeof(float)));
      } catch (const Refused &why) {
        answer["refused"] = why.what();
      }
    } else if (command == "burst" && engine) {
      const hrnn::Clock clock = layer->threads == 1 ? hrnn::Clock::kThread : hrnn::Clock::kWall;
      answer["us"] = hrnn::burst(clock, [&] { engine->run(); }) / layer->steps;
    } else {
      throw std::invalid_argument("not understood: '" + line + "'");
    }
    std::cout << answer.dump() << std::endl;
  }
}

inline int main(const char *name, const std::string &version, Open open) {
  try {
    serve(version, open);
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s: error: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace peer
