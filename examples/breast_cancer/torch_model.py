# 30 measurements of cell nuclei, benign or malignant. A record of several fields is one row, in the schema's order.
# Only the model: Headrace builds it in a sandbox, where `torch`, `nn`, `F`, `Accuracy` and `Loss` are there already.
class Diagnosis(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(30),  # the measurements have very different units
            nn.Linear(30, 16),
            nn.ReLU(),
            nn.Linear(16, 2),
        )

    def forward(self, x):
        return self.layers(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.01)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}


model = Diagnosis()
