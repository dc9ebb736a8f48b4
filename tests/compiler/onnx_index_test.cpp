// SPDX-License-Identifier: Apache-2.0
//
// Elements chosen by numbers: what gathering and scattering become, what folds, what is refused. What they compute is
// tested in tests/models (the onnx package's cases, exports, whole models) and tests/runtime.
#include <gmock/gmock.h>

#include "onnx_models.h"

namespace hrnn::test {
namespace {

using onnx::TensorProto;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A node 'n' over x and integer initializers or inputs 'i' and, where it has dimensions, float updates 'u'.
struct Case {
  std::string type;
  OnnxDims x = {"batch", 4, 6}, i, u = {};
  Attributes attributes = nullptr;
  int64_t opset = 18;
  int index_type = TensorProto::INT64, x_type = TensorProto::FLOAT, update_type = TensorProto::FLOAT;

  ModelBuilder model() const {
    ModelBuilder builder(opset);
    builder.input("x", x, x_type).input("i", i, index_type).output("y");
    std::vector<std::string> inputs = {"x", "i"};
    if (!u.empty()) {
      builder.input("u", u, update_type);
      inputs.push_back("u");
    }
    NodeBuilder node = builder.node(type, inputs, {"y"}).name("n");
    if (attributes) attributes(node);
    return builder;
  }
  std::string error() const { return model().error(); }
  Graph import() const { return model().import(); }
};

Attributes attribute(const char *name, int64_t value) {
  return [=](NodeBuilder &node) { node.attr(name, value); };
}
Attributes reduction(const char *value) {
  return [=](NodeBuilder &node) { node.attr("reduction", value); };
}

TEST(Indexing, BecomesOneOperation) {
  EXPECT_THAT(operations(Case{"GatherElements", {"batch", 4, 6}, {"batch", 4, 2}, {}, attribute("axis", -1)}.import()),
              ElementsAre("GatherElements axis 2 of [batch, 4, 6]"));
  const Graph nd = Case{"GatherND", {"batch", 4, 6}, {"batch", 3, 1}, {}, attribute("batch_dims", 1)}.import();
  EXPECT_THAT(operations(nd), ElementsAre("GatherND by 1 of [batch, 4, 6], batch 1"));
  EXPECT_EQ(nd.dims_text(nd.outputs[0]), "[batch, 3, 6]");
  EXPECT_THAT(operations(Case{"ScatterElements", {"batch", 4}, {"batch", 2}, {"batch", 2}, attribute("axis", 1)}.import()),
              ElementsAre("ScatterElements axis 1 of [batch, 4]"));
  for (const auto &[name, function] : {std::pair("add", "Add"), {"mul", "Mul"}, {"min", "Min"}, {"max", "Max"}}) {
    EXPECT_THAT(operations(Case{"ScatterND", {"batch", 4, 6}, {5, 2}, {5, 6}, reduction(name)}.import()),
                ElementsAre(std::string("ScatterND by 2 of [batch, 4, 6], ") + function));
    EXPECT_THAT(operations(Case{"ScatterElements", {3, 4}, {3, 2}, {3, 2}, reduction(name)}.import()),
                ElementsAre(std::string("ScatterElements axis 0 of [3, 4], ") + function));
  }
  EXPECT_THAT(operations(Case{"Scatter", {3, 4}, {3, 2}, {3, 2}, attribute("axis", 1), 9}.import()),
              ElementsAre("ScatterElements axis 1 of [3, 4]"));
}

TEST(Indexing, TakesWhatIsAllowed) {
  for (int type : {TensorProto::INT32, TensorProto::INT64}) {
    EXPECT_EQ((Case{"GatherElements", {3, 4}, {3, 4}, {}, nullptr, 18, type}.error()), "");
    EXPECT_EQ((Case{"ScatterND", {3, 4}, {5, 2}, {5}, nullptr, 18, type}.error()), "");
  }
  EXPECT_EQ((Case{"GatherElements", {3, 4}, {2, 9}, {}, attribute("axis", 1)}.error()), "");  // more than data has along the axis
  Case bools{"ScatterND", {3, 4}, {5, 2}, {5}};
  bools.x_type = bools.update_type = TensorProto::BOOL;
  EXPECT_EQ(bools.error(), "");
  bools.attributes = reduction("add");
  EXPECT_THAT(bools.error(), HasSubstr("combines bools by a reduction; they can only be replaced"));
}

TEST(Indexing, UpdatesHaveTheTypeOfTheData) {
  Case updates{"ScatterElements", {3, 4}, {3, 2}, {3, 2}};
  updates.update_type = TensorProto::INT64;
  EXPECT_THAT(updates.error(), HasSubstr("combines float32 and int64"));
}

TEST(Indexing, ErrorsNameWhatIsWrong) {
  const struct {
    const char *message;
    std::string error;
  } cases[] = {
      {"input indices ('i') is float32; it must be int32 or int64",
       Case{"GatherElements", {3, 4}, {3, 4}, {}, nullptr, 18, TensorProto::FLOAT}.error()},
      {"axis 2 is out of range for a tensor of 2 dimensions",
       Case{"GatherElements", {3, 4}, {3, 4}, {}, attribute("axis", 2)}.error()},
      {"input indices ('i') has 1 dimensions and data 2; they must have as many", Case{"GatherElements", {3, 4}, {3}}.error()},
      {"dimension 1 of indices ('i') is 5; it must be at most 4, that of data", Case{"GatherElements", {3, 4}, {2, 5}}.error()},
      {"attribute 'batch_dims' is 2; data has 3 dimensions and indices 2, so it must be at least 0 and below 2",
       Case{"GatherND", {3, 4, 5}, {3, 4}, {}, attribute("batch_dims", 2)}.error()},
      {"attribute 'batch_dims' is -1; data has 2 dimensions and indices 2, so it must be at least 0 and below 2",
       Case{"GatherND", {3, 4}, {3, 1}, {}, attribute("batch_dims", -1)}.error()},
      {"batch dimension 0 is 3 in data and 2 in indices; they must be equal",
       Case{"GatherND", {3, 4}, {2, 1}, {}, attribute("batch_dims", 1)}.error()},
      {"the last dimension of indices ('i') is dynamic", Case{"GatherND", {3, 4}, {2, "n"}}.error()},
      {"indices ('i') are tuples of 3; data has 2 dimensions to pick from, so 1 to 2 are possible",
       Case{"GatherND", {3, 4}, {2, 3}}.error()},
      {"indices ('i') are tuples of 0; data has 2 dimensions", Case{"GatherND", {3, 4}, {2, 0}}.error()},
      {"indices ('i') are tuples of 2; data has 1 dimensions",
       Case{"GatherND", {3, 4}, {3, 2}, {}, attribute("batch_dims", 1)}.error()},
      {"attribute 'batch_dims' is not one of GatherND in opset 11",
       Case{"GatherND", {3, 4}, {3, 1}, {}, attribute("batch_dims", 1), 11}.error()},
      {"updates ('u') has shape [3, 3]; the indices pick [3, 2]", Case{"ScatterElements", {3, 4}, {3, 2}, {3, 3}}.error()},
      {"updates ('u') has shape [5, 4]; the indices pick [5]", Case{"ScatterND", {3, 4}, {5, 2}, {5, 4}}.error()},
      {"attribute 'reduction' is 'max'; in opset 16 it must be none, add or mul",
       Case{"ScatterND", {3, 4}, {5, 2}, {5}, reduction("max"), 16}.error()},
      {"attribute 'reduction' is 'min'; in opset 17 it must be none, add or mul",
       Case{"ScatterND", {3, 4}, {5, 2}, {5}, reduction("min"), 17}.error()},
      {"attribute 'reduction' is not one of ScatterND in opset 13",
       Case{"ScatterND", {3, 4}, {5, 2}, {5}, reduction("add"), 13}.error()},
      {"attribute 'reduction' is 'mean'; in opset 18 it must be none, add, mul, min or max",
       Case{"ScatterND", {3, 4}, {5, 2}, {5}, reduction("mean")}.error()},
      {"its result has 9 dimensions; at most 8 are supported",
       Case{"GatherND", {2, 2, 2, 2, 2}, {1, 1, 1, 1, 1, 1}}.error()},
  };
  for (const auto &c : cases) {
    EXPECT_THAT(c.error, AllOf(HasSubstr("node 'n' ("), HasSubstr(c.message))) << c.message;
  }
}

TEST(Indexing, KnownIndicesAreCheckedAtOnce) {
  for (const auto &[type, message] :
       {std::pair("GatherElements", "index 4 is out of range for a dimension of 4"), std::pair("GatherND", "index 4 is")}) {
    ModelBuilder builder;
    builder.input("x", {"batch", 4}).output("y");
    onnx::TensorProto *indices = builder.tensor("i", {1, 2}, TensorProto::INT64);
    indices->add_int64_data(-4);
    indices->add_int64_data(4);
    NodeBuilder node = builder.node(type, {"x", "i"}, {"y"}).name("n");
    if (std::string(type) == "GatherElements") node.attr("axis", int64_t{1});
    EXPECT_THAT(builder.error(), HasSubstr(message));
  }
  for (const int64_t index : {4, 5}) {  // behind the batch axis
    ModelBuilder builder;
    builder.input("x", {2, 5}).output("y");
    onnx::TensorProto *indices = builder.tensor("i", {2, 1}, TensorProto::INT64);
    indices->add_int64_data(0);
    indices->add_int64_data(index);
    builder.node("GatherND", {"x", "i"}, {"y"}).name("n").attr("batch_dims", int64_t{1});
    const std::string error = builder.error();
    EXPECT_THAT(error, HasSubstr(index == 5 ? "index 5 is out of range for a dimension of 5" : ""));
    EXPECT_EQ(error.empty(), index == 4);
  }
  // All known: folded, and out of range is an error of the compiler.
  for (const int64_t index : {-5, 1}) {
    ModelBuilder builder;
    builder.weights("x", {4}, {1, 2, 3, 4}).integers("i", {index}).output("y");
    builder.node("GatherElements", {"x", "i"}, {"y"}).name("n");
    const std::string error = builder.error();
    EXPECT_THAT(error, index == 1 ? HasSubstr("") : HasSubstr("index -5 is out of range for a dimension of 4"));
    EXPECT_EQ(error.empty(), index == 1);
  }
}

ModelBuilder top_k(const OnnxDims &x, int64_t k, int64_t opset = 17, int type = TensorProto::FLOAT) {
  ModelBuilder builder(opset);
  builder.input("x", x, type).integers("k", {k}).output("values").output("indices");
  builder.node("TopK", {"x", "k"}, {"values", "indices"}).name("n");
  return builder;
}

TEST(TopK, IndicesAndWhatTheyPick) {
  const Graph graph = top_k({"batch", 6}, 3).import();
  EXPECT_THAT(operations(graph),
              ElementsAre("TopK the largest along axis 1 of [batch, 6]", "GatherElements axis 1 of [batch, 6]"));
  EXPECT_EQ(graph.dims_text(graph.outputs[0]), "[batch, 3]");
  EXPECT_EQ(graph.dims_text(graph.outputs[1]), "[batch, 3]");
  EXPECT_EQ(top_k({"batch", 6}, 6).error(), "");
  ModelBuilder unsorted = top_k({6}, 2);
  NodeBuilder(unsorted.graph().mutable_node(0)).attr("sorted", int64_t{0}).attr("largest", int64_t{0});
  EXPECT_THAT(operations(unsorted.import()), ::testing::Contains("TopK the smallest along axis 0 of [6]"));
}

TEST(TopK, ErrorsNameWhatIsWrong) {
  EXPECT_THAT(top_k({"batch", 6}, 7).error(), HasSubstr("node 'n' (TopK): picks 7 of 6 elements along axis 1"));
  EXPECT_THAT(top_k({"batch", 6}, -1).error(), HasSubstr("picks -1 of 6 elements along axis 1"));
  ModelBuilder early = top_k({6}, 1, 10);
  NodeBuilder(early.graph().mutable_node(0)).attr("largest", int64_t{0});
  EXPECT_THAT(early.error(), HasSubstr("attribute 'largest' is not one of TopK in opset 10"));
  EXPECT_THAT(top_k({"batch", 6}, 1, 9).error(), HasSubstr("has 2 inputs; TopK takes 1 before opset 10"));
  EXPECT_THAT(top_k({}, 1).error(), HasSubstr("axis -1 is out of range for a tensor of 0 dimensions"));
  EXPECT_THAT(top_k({6}, 1, 17, TensorProto::BOOL).error(), HasSubstr("its input is bool"));
  ModelBuilder two = top_k({6}, 1);
  two.integers("several", {1, 2});
  two.graph().mutable_node(0)->set_input(1, "several");
  EXPECT_THAT(two.error(), HasSubstr("input K ('several') has 2 elements; it must have 1"));
  ModelBuilder none(9);
  none.input("x", {6}).output("values");
  none.node("TopK", {"x"}, {"values", ""}).name("n");
  EXPECT_THAT(none.error(), HasSubstr("attribute 'k' is missing"));
  ModelBuilder computed = top_k({6}, 1);
  computed.input("later", {1}, TensorProto::INT64);
  computed.graph().mutable_node(0)->set_input(1, "later");
  EXPECT_THAT(computed.error(), HasSubstr("input K ('later') is computed when the model runs"));
}

TEST(ReverseSequence, ErrorsNameWhatIsWrong) {
  const auto error = [](const OnnxDims &lengths, int type) {
    ModelBuilder builder;
    builder.input("x", {5, 3, 2}).input("l", lengths, type).output("y");
    builder.node("ReverseSequence", {"x", "l"}, {"y"}).name("n");
    return builder.error();
  };
  EXPECT_EQ(error({3}, TensorProto::INT64), "");
  EXPECT_THAT(error({4}, TensorProto::INT64),
              HasSubstr("input sequence_lens ('l') has shape [4]; it must have one length for each of 3 sequences"));
  EXPECT_THAT(error({3, 1}, TensorProto::INT64), HasSubstr("has shape [3, 1]"));
  EXPECT_THAT(error({3}, TensorProto::FLOAT), HasSubstr("input sequence_lens ('l') is float32; it must be int64"));
}

// ---- Sizes as data ----

TEST(SizesAsData, AreReadWhenTheModelRuns) {
  ModelBuilder builder;
  builder.input("x", {"batch", "time", 6}).output("y");
  builder.node("Shape", {"x"}, {"y"});
  EXPECT_THAT(operations(builder.import()), ElementsAre("Range from batch in steps of 0", "Range from time in steps of 0",
                                                        "Concat axis 0", "Reshape to [3]", "Transpose permutation [0]"));
  ModelBuilder fixed;
  fixed.input("x", {4, 5}).output("y");
  fixed.node("Shape", {"x"}, {"y"});
  EXPECT_EQ(fixed.import().nodes.size(), 1u);
}

TEST(SizesAsData, OfMoreThanOneDimensionAreRefused) {
  ModelBuilder builder;
  builder.input("x", {"batch", "time", 6}).output("y");
  builder.node("Size", {"x"}, {"y"}).name("n");
  EXPECT_THAT(builder.error(), HasSubstr("uses the size 6*batch*time as data; only one dynamic dimension and a fixed "
                                         "number are supported"));
}

}  // namespace
}  // namespace hrnn::test
