// SPDX-License-Identifier: Apache-2.0
#include "problem.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace hrnn {
namespace {

constexpr const char *kForm = "gru:lbr:i64h64:b1:t100:fwd:f32";

[[noreturn]] void refuse(const std::string &descriptor, const std::string &why) {
  throw std::invalid_argument("problem '" + descriptor + "': " + why + " (example: " + kForm + ")");
}

// Takes `letter` and a positive number off the front of `text`.
int take_number(const std::string &descriptor, std::string *text, char letter) {
  size_t end = 1;
  while (end < text->size() && isdigit(static_cast<unsigned char>((*text)[end]))) end++;
  const bool fits = !text->empty() && (*text)[0] == letter && end > 1 && end <= 8;
  const int value = fits ? std::stoi(text->substr(1, end - 1)) : 0;
  if (value < 1)
    refuse(descriptor, "'" + *text + "' should begin with '" + letter + "' and a number from 1 to 9999999");
  text->erase(0, end);
  return value;
}

void expect_end(const std::string &descriptor, const std::string &rest) {
  if (!rest.empty()) refuse(descriptor, "'" + rest + "' is left over");
}

}  // namespace

double Problem::steps() const {
  double sum = 0;
  for (int row = 0; row < batch; row++) sum += length(row);
  return sum / batch;
}

Problem parse_problem(const std::string &descriptor) {
  std::vector<std::string> fields;
  std::istringstream stream(descriptor);
  for (std::string field; std::getline(stream, field, ':');) fields.push_back(field);
  if (fields.size() != 7 && fields.size() != 8)
    refuse(descriptor, "it has " + std::to_string(fields.size()) + " fields instead of 7 or 8");

  Problem p{};
  p.text = descriptor;
  const std::string cell = fields[0] + ":" + fields[1];
  if (cell == "gru:lbr")
    p.cell = "gru", p.gates = 3;
  else if (cell == "gru:rbl")
    p.cell = "gru_reset_before", p.gates = 3;
  else if (cell == "rnn:tanh")
    p.cell = "rnn", p.gates = 1;
  else
    refuse(descriptor, "the cell '" + cell + "' is none of gru:lbr, gru:rbl, rnn:tanh");

  p.input = take_number(descriptor, &fields[2], 'i');
  p.hidden = take_number(descriptor, &fields[2], 'h');
  expect_end(descriptor, fields[2]);
  p.batch = take_number(descriptor, &fields[3], 'b');
  expect_end(descriptor, fields[3]);
  p.time = take_number(descriptor, &fields[4], 't');
  expect_end(descriptor, fields[4]);

  if (fields[5] == "fwd")
    p.direction = HRNN_FORWARD;
  else if (fields[5] == "rev")
    p.direction = HRNN_REVERSE;
  else if (fields[5] == "bidi")
    p.direction = HRNN_BIDIRECTIONAL;
  else
    refuse(descriptor, "the direction '" + fields[5] + "' is none of fwd, rev, bidi");
  if (fields[6] != "f32") refuse(descriptor, "the type '" + fields[6] + "' is not f32");
  p.ragged = fields.size() == 8;
  if (p.ragged && fields[7] != "ragged") refuse(descriptor, "the last field '" + fields[7] + "' is not ragged");
  return p;
}

std::vector<Problem> read_problems(const std::vector<std::string> &arguments) {
  std::vector<Problem> problems;
  for (const std::string &argument : arguments) {
    if (argument.find(':') != std::string::npos) {
      problems.push_back(parse_problem(argument));
      continue;
    }
    std::ifstream file(argument);
    if (!file) throw std::invalid_argument("'" + argument + "' is neither a problem nor a file that can be read");
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      number++;
      std::istringstream words(line.substr(0, line.find('#')));
      std::string word;
      if (!(words >> word)) continue;
      try {
        problems.push_back(parse_problem(word));
        if (words >> word) refuse(problems.back().text, "'" + word + "' follows it on its line");
      } catch (const std::invalid_argument &error) {
        throw std::invalid_argument(argument + ":" + std::to_string(number) + ": " + error.what());
      }
    }
  }
  return problems;
}

}  // namespace hrnn
